"""Solvers beside cvxpy on the same programs, written out block by block, and singular bounds beside dense ones."""

import numpy as np
import pytest
import torch

pytest.importorskip("cvxpy", reason="cvxpy is not installed: there is nothing to compare with")

from convex_programs import optimum

from vitscope.convex.block import BLOCKS, Sizes
from vitscope.convex.certificate import certify
from vitscope.convex.gates import terms
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import pull_image
from vitscope.convex.solver import solve
from vitscope.numerics.singular import Operator, norm_bound
from vitscope.runs.registry import import_all

import_all("vitscope.convex.blocks")
IMAGES, TOKENS, DIM, OUTPUTS = 6, 3, 2, 2


def problem(block: str, gates: int | None, *, pooled: bool, labels: bool = False, beta: float = 0.05) -> Problem:
    random = torch.Generator().manual_seed(3)
    tokens = torch.randn(IMAGES, TOKENS, DIM, generator=random, dtype=torch.float64)
    targets = torch.randn(IMAGES, 1 if pooled else TOKENS, OUTPUTS, generator=random, dtype=torch.float64)
    ones = torch.ones(IMAGES, dtype=torch.float64)
    loss = CrossEntropy(torch.arange(IMAGES) % OUTPUTS, ones, OUTPUTS) if labels else Squared(targets, ones)
    made = BLOCKS[block]()
    each = terms(made, Sizes(TOKENS, DIM, OUTPUTS), gates, random, torch.float64)
    return Problem(tokens, loss, made, each, beta, pooled=pooled, dtype=torch.float64)


def reference(asked: Problem) -> float:
    groups = asked.block.groups()
    vectors = None
    if asked.terms[0].vector is not None:
        shape = {"attention": (DIM, DIM), "mixer": (TOKENS, TOKENS)}.get(asked.block.name, (-1,))
        rows = [term.vector.numpy().reshape(shape) for term in asked.terms]
        vectors = [np.stack(rows[at : at + groups]) if groups > 1 else rows[at] for at in range(0, len(rows), groups)]
    labels = isinstance(asked.loss, CrossEntropy)
    targets = asked.loss.labels.numpy() if labels else asked.loss.targets.numpy()
    targets = targets[:, 0] if asked.pooled and not labels else targets
    loss = "cross-entropy" if labels else "squared"
    tokens = np.asarray(asked.tokens)
    return optimum(
        asked.block.name, tokens, targets, vectors, asked.beta, loss=loss, pooled=asked.pooled, groups=groups
    )


@pytest.mark.parametrize(("pooled", "labels"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("gates", [None, 2])
@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_the_certified_optimum_is_that_of_cvxpy(block, gates, pooled, labels):
    if block == "linear" and not pooled:
        block = "mlp"
    asked = problem(block, gates, pooled=pooled, labels=labels)
    expected = reference(asked)
    found = solve(asked, tol=1e-6, max_passes=5000).certificate
    assert found.primal == pytest.approx(expected, rel=2e-6)
    assert found.dual <= expected + 1e-7


@pytest.mark.parametrize("gates", [None, 2])
def test_a_probable_certificate_is_just_below_the_exact_one(gates, monkeypatch):
    asked = problem("attention", gates, pooled=True, labels=True)
    heads = solve(asked, tol=1e-4).heads
    exact = certify(asked, heads)
    monkeypatch.setattr("vitscope.convex.pulled.ENTRIES", 0)
    probable = certify(asked, heads)
    assert (exact.kind, probable.kind) == ("exact", "probable")
    assert exact.slack * (1 - 1e-9) <= probable.slack <= exact.slack * (1 + 1e-3)
    assert probable.dual <= exact.dual + 1e-12


def test_the_bound_of_an_adjoint_image_is_above_its_dense_norm():
    asked = problem("mixer", 2, pooled=False)
    residual = asked.gradient(asked.outputs(asked.no_heads()))
    for term in range(2):
        image = asked.image(residual, term)
        shown = pull_image(asked, residual, term)
        torch.testing.assert_close(shown.matrix, image)
        hidden = Operator(shown.left, shown.right, shown.apply, shown.adjoint)
        found = norm_bound(hidden, image.new_zeros(0, shown.left), torch.Generator().manual_seed(0))
        dense = float(torch.linalg.matrix_norm(image, 2))
        assert dense * (1 - 1e-12) <= found.bound <= dense * (1 + 1e-3)
