"""Labs on planted images: real objects in place of the token model, from the command line to the run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.data import images
from vitscope.engine.plan import Plan
from vitscope.engine.question import carry_out
from vitscope.engine.work.parcel import pack, unpack
from vitscope.labs.attention_concentration import AttentionConcentration
from vitscope.labs.experiment import Experiment, grid_of
from vitscope.labs.initial_error import InitialError
from vitscope.labs.sample_complexity import SampleComplexity
from vitscope.labs.shallow.planted import Objects, Planted, PlantedTokens
from vitscope.labs.shallow.planting import Planting, objects_to_plant
from vitscope.labs.shallow.token_model import Role
from vitscope.labs.spurious_tokens import SpuriousTokens
from vitscope.labs.token_sparsification import TokenSparsification
from vitscope.measurement.errors import UserError
from vitscope.runs.store import read_run

LABS = (SampleComplexity, InitialError, TokenSparsification, SpuriousTokens, AttentionConcentration)


@pytest.fixture(scope="module")
def digits() -> Planting:
    """Four digits; the first two are threes and eights."""
    return objects_to_plant(images("digits"), (3, 8, 0, 1), patch=2)


def two(planted: Planting) -> Planting:
    """The same without the classes of the spurious patches."""
    own = planted.objects.labels < 2
    return replace(planted, objects=Objects(planted.objects.pixels[own], planted.objects.labels[own]))


def smoke(lab, planted):
    """The smoke size on planted digits."""
    found = replace(lab.smoke(), patterns=6, noise=0.1)
    return replace(found, planted=planted if lab is SpuriousTokens else two(planted))


def striped(*levels: float) -> Objects:
    """Two objects of each class, of one grey level a class."""
    pixels = torch.tensor(levels).repeat_interleave(2)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    return Objects(pixels, torch.arange(len(levels)).repeat_interleave(2))


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_a_lab_runs_on_planted_images(lab, digits):
    asked = Experiment(smoke(lab, digits))
    run = carry_out(asked, Plan())
    assert run.claims
    assert run.spec.images["name"] == "digits/test"
    assert run.spec.images["of"] == "trials"
    assert run.spec.settings["planted"] == {"side": 4, "patch": 2, "background": 0.25}
    assert "token_count" not in run.spec.settings
    (note,) = run.notes
    assert note.startswith(f"Tokens are patches of {len(asked.lab.planted.objects.labels)} objects of digits/test")
    assert asked.spec.address != Experiment(replace(asked.lab, planted=None)).spec.address
    assert asked.lab.plan_trials()[0].data.places == 16


def test_what_is_planted_decides_the_address_and_the_path_does_not(digits):
    lab = smoke(SampleComplexity, digits)
    addresses = [
        Experiment(replace(lab, planted=replace(lab.planted, **change))).spec.address
        for change in ({}, {"name": "elsewhere"}, {"fingerprint": "x"}, {"side": 5}, {"background": 0.1})
    ]
    assert addresses[0] == addresses[1]
    assert len(set(addresses)) == 4


def test_objects_are_either_trained_or_tested_on(digits):
    training, testing = digits.tokens(4, 0.5, 0.05, 0.0, spurious=0.1)
    rows = [set(map(tuple, one.objects.pixels.flatten(1).tolist())) for one in (training, testing)]
    assert not rows[0] & rows[1]
    assert len(rows[0]) + len(rows[1]) == len(digits.objects.labels)
    assert torch.equal(training.vectors, testing.vectors)


def test_the_noise_of_planted_tokens_is_the_root_of_its_mean_square(digits):
    tokens, _ = two(digits).tokens(4, 0.5, 0.0, 0.3)
    sample = tokens.draw(400, torch.Generator().manual_seed(0))
    squares = sample.distances[sample.roles == Role.RELEVANT].square()
    error = float(squares.std() / len(squares) ** 0.5)
    assert abs(float(squares.mean()) - 0.3**2) < 4 * error


@pytest.mark.parametrize("agreement", [0.0, 0.8, 1.0])
def test_spurious_patches_agree_with_the_label_as_often_as_asked(agreement):
    planted = Planted(4, 2, 0.5, 0.1, background=0.0, spurious=0.25, agreement=agreement)
    tokens = PlantedTokens(planted, striped(0.1, 0.2, 0.8, 0.9), 4)
    count = 600
    sample = tokens.draw(count, torch.Generator().manual_seed(1))
    assert (sample.roles == Role.SPURIOUS).sum(1).tolist() == [4] * count
    level = (sample.tokens * (sample.roles == Role.SPURIOUS).unsqueeze(2)).sum((1, 2)) / (4 * 12)
    brighter = level * 12**0.5 / 2 + 0.5 > 0.85
    agrees = brighter == (sample.labels < 0)  # the last class goes with -1
    assert abs(float(agrees.float().mean()) - agreement) <= 4 * (agreement * (1 - agreement) / count) ** 0.5


def test_planted_images_are_learned_better_with_a_larger_share(digits):
    lab = SampleComplexity(
        alpha="0.2,0.9", samples="128", patterns=4, noise=0.1, sigma=0.1, steps=200, trials=10, planted=two(digits)
    )
    run = carry_out(Experiment(lab), Plan())
    error = run["error-attention/error"]
    assert error.dims == ("alpha", "samples")
    assert float(error[1, 0]) < 0.35
    (claim,) = (one for one in run.claims if one.name == "error-falls-attention")
    assert claim.verdict.value == "holds"


def test_planted_objects_travel_to_workers_once_for_all_points(digits):
    experiment = grid_of(smoke(SampleComplexity, digits), {"tau": "0.1,0.2"})
    assert experiment.variants[0].planted is experiment.variants[1].planted
    content = pack(experiment.work)
    pixels = experiment.lab.planted.objects.pixels
    assert len(content) < 2.5 * pixels.numel() * 4  # the objects, and their halves
    shard = experiment.work.shards()[0]
    arrived, here = (work.fold(shard, lambda _: None).values for work in (unpack(content), experiment.work))
    assert all(np.array_equal(arrived[name], here[name], equal_nan=True) for name in here)


@pytest.mark.parametrize(
    ("classes", "patch", "patterns", "said"),
    [((3,), 2, 4, "give two different"), ((3, 3), 2, 4, "give two different"), ((3, 8), 1, 4, "has only 3 numbers")],
)
def test_what_cannot_be_planted_is_said(classes, patch, patterns, said):
    with pytest.raises(UserError, match=said):
        objects_to_plant(images("digits"), classes, patch=patch).tokens(patterns, 0.5, 0.0, 0.0)


def test_a_lab_with_a_spurious_share_needs_four_classes(digits):
    with pytest.raises(UserError, match="four classes with a spurious share"):
        replace(smoke(SpuriousTokens, digits), planted=two(digits)).plan_trials()


def test_images_are_planted_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = (
        "--token-count",
        "10",
        "--patterns",
        "4",
        "--neurons",
        "8",
        "--steps",
        "20",
        "--tests",
        "16",
        "--trials",
        "2",
    )
    asked = ("lab", "run", "attention-concentration", "--images", "digits", "--classes", "3,8", "--patch", "2", *sizes)
    answer = CliRunner().invoke(app, [*asked, "--samples", "16", "--limit", "40", "--out", "one"])
    assert answer.exit_code == 0, answer.stderr
    run = read_run("one")
    assert run.spec.images["objects"] == 40
    assert "digits" in Path("one/page.html").read_text()


def test_cifar_objects_are_learned_in_noise(real_data):
    source = images(str(real_data / "cifar10"), split="train", label="label")
    cifar = objects_to_plant(source, (0, 1), limit=400)
    lab = SampleComplexity(
        alpha="0.2,0.8", samples="128", noise=0.1, sigma=0.1, rate=0.5, steps=100, trials=4, planted=cifar
    )
    error = carry_out(Experiment(lab), Plan())["error-attention/error"].values
    assert cifar.side == 8
    assert np.isfinite(error).all()
    assert error[1, 0] < 0.45  # chance is 0.5, and its standard error over the tests of all trials 0.016
