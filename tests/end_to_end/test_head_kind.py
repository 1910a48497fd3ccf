"""A new kind of head is one file: this one, whose kind reads nothing but an image's first token."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.convex import load, save
from vitscope.convex.block import BLOCKS, AbstractBlock, Sizes
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.layer import AbstractNeurons
from vitscope.measurement.errors import UserError
from vitscope.runs.store import read_run


@final
class FirstTokenHeads(AbstractNeurons):
    """The first token through hidden neurons."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        return (tokens[:, :1] @ weights.transpose(0, 1)).transpose(1, 2)


@dataclass(frozen=True)
class FirstToken(AbstractBlock):
    """The first token alone: ``sum_h sigma(scale x_1^T u_h) v_h^T``."""

    scale: float = 1.0
    name = "first-token"
    layer = FirstTokenHeads
    mixes = False

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        return ConvexFirstTokenClassifier, ConvexFirstTokenRegressor

    def left_size(self, sizes: Sizes) -> int:
        return sizes.dim

    def inner_size(self, sizes: Sizes) -> int:
        return 1

    def inward(self, tokens: Tensor, left: Tensor, pooled: bool) -> Tensor:
        return (self.scale * tokens[:, :1] @ left.T).transpose(1, 2)

    def inward_adjoint(self, tokens: Tensor, activity: Tensor, pooled: bool) -> Tensor:
        return self.scale * activity[:, :, 0].T @ tokens[:, 0]

    def outward(self, tokens: Tensor, activity: Tensor, pooled: bool) -> Tensor:
        return activity.unsqueeze(-1)

    def outward_adjoint(self, tokens: Tensor, rows: Tensor, pooled: bool) -> Tensor:
        return rows.squeeze(-1)


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexFirstTokenClassifier(AbstractConvexClassifier):
    """Logits of an image's first token."""

    scale: float = 1.0
    of = FirstToken


class ConvexFirstTokenRegressor(AbstractConvexRegressor):
    """Outputs of an image's first token."""

    of = FirstToken


@pytest.fixture(autouse=True)
def registered():
    BLOCKS.add("first-token")(FirstToken)
    yield
    BLOCKS.forget(["first-token"])


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    tokens = random.standard_normal((60, 4, 5))
    tokens[:, 0, :3] += 3 * np.eye(3)[labels]
    return tokens, labels


@pytest.mark.parametrize("activation", ["linear", "gated-relu", "relu"])
def test_it_is_fitted_certified_saved_loaded_and_becomes_a_module(activation, tmp_path):
    tokens, labels = data()
    head = ConvexFirstTokenClassifier(activation=activation, beta=0.02, gates=2, tol=0.02).fit(tokens, labels)
    assert head.certificate_.relative_gap <= 0.02
    assert head.score(tokens, labels) > 0.9
    again = load(save(head, tmp_path))
    assert type(again) is ConvexFirstTokenClassifier
    assert np.array_equal(again.decision_function(tokens), head.decision_function(tokens))
    module = again.to_module()
    assert np.allclose(module(torch.from_numpy(tokens)).detach(), head.decision_function(tokens), atol=1e-5)
    other = tokens.copy()
    other[:, 1:] = 0
    assert np.array_equal(again.decision_function(other), head.decision_function(tokens))


def test_its_options_are_its_estimators_and_a_file_of_a_kind_that_is_not_there_says_so(tmp_path):
    tokens, labels = data()
    head = ConvexFirstTokenClassifier(activation="linear", scale=3.0, standardize=False, beta=0.1).fit(tokens, labels)
    assert head.block() == FirstToken(3.0)
    same = ConvexFirstTokenClassifier(activation="linear", standardize=False, beta=0.1 / 3).fit(tokens, labels)
    assert head.certificate_.primal == pytest.approx(same.certificate_.primal, rel=2e-3)  # a weight thrice as cheap
    save(head, tmp_path)
    BLOCKS.forget(["first-token"])
    try:
        with pytest.raises(UserError, match="estimator ConvexFirstTokenClassifier; import the module or plugin"):
            load(tmp_path)
    finally:
        BLOCKS.add("first-token")(FirstToken)


def test_the_command_line_fits_compares_and_reports_it(tmp_path: Path):
    small = ("--images", "digits", "--limit", "200", "--test-limit", "100", "--pool", "2", "--width", "6")
    places = ("--features", str(tmp_path / "features"), "--activation", "linear", "--tol", "0.02")

    def head(*arguments: str) -> str:
        answer = CliRunner().invoke(app, ["head", arguments[0], "digits", *small, *places, *arguments[1:]])
        assert answer.exit_code == 0, answer.stderr
        return answer.stdout

    assert "first-token, linear" in head("fit", "--kind", "first-token", "--beta", "0.02", "--out", str(tmp_path / "a"))
    weights = read_run(str(tmp_path / "a"))["convex-tokens/token_weight"].values
    assert np.abs(weights[:, :, 0, 0]).min() > 0
    assert np.abs(weights).sum() == pytest.approx(np.abs(weights[:, :, 0, 0]).sum())
    assert "Weights of patches" in (tmp_path / "a" / "page.html").read_text()
    out = ("--kinds", "first-token,mixer", "--betas", "2", "--out", str(tmp_path / "b"))
    assert "first-token" in head("compare", *out)
    (claim, _) = sorted(read_run(str(tmp_path / "b")).claims, key=lambda claim: claim.name)
    assert claim.figure.startswith("mixer less first-token")
