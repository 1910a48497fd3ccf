"""Certificates worked out with pencil and paper, and what they say."""

import math
from dataclasses import replace

import pytest
import torch

from vitscope.convex import certificate
from vitscope.convex.block import Sizes
from vitscope.convex.blocks.attention import AttentionBlock
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.certificate import Certificate, certify, largest_beta
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.solver import solve
from vitscope.convex.solvers.lifted import from_lifted
from vitscope.convex.solvers.parts.polish import polish

GENERATOR = torch.Generator


def problem(tokens: torch.Tensor, targets: torch.Tensor, beta: float, block=None, pooled: bool = True) -> Problem:
    block = block or Linear()
    sizes = Sizes(tokens.shape[1], tokens.shape[2], targets.shape[2])
    term = terms(block, sizes, None, GENERATOR(), torch.float64)
    loss = Squared(targets, torch.ones(len(tokens), dtype=torch.float64))
    return Problem(tokens, loss, block, term, beta, pooled=pooled, dtype=torch.float64)


def scalar(beta: float) -> Problem:
    r"""One image, token, entry and output: :math:`\tfrac12 (z - 2)^2 + \beta |z|`, least at ``2 - beta``."""
    return problem(torch.ones(1, 1, 1).double(), torch.full((1, 1, 1), 2.0).double(), beta)


def head(weight: float) -> Heads:
    root = math.sqrt(abs(weight))
    sign = math.copysign(root, weight)
    return Heads((Factors(torch.tensor([[root]]).double(), torch.tensor([[[sign]]]).double()),))


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.5])
def test_a_scalar_problem_is_certified_as_on_paper(beta):
    best = 2 * beta - beta**2 / 2
    optimal = certify(scalar(beta), head(2 - beta))
    assert optimal.primal == pytest.approx(best)
    assert optimal.dual == pytest.approx(best)
    assert optimal.slack == pytest.approx(1.0)
    assert optimal.kind == "exact"
    none = certify(scalar(beta), scalar(beta).no_heads())
    assert none.primal == pytest.approx(2.0)
    assert none.dual == pytest.approx(best)
    assert none.slack == pytest.approx(2 / beta)


def test_a_head_that_is_too_large_is_not_optimal():
    found = certify(scalar(0.5), head(3.0))
    assert found.primal == pytest.approx(0.5 + 1.5)
    assert found.slack == pytest.approx(2.0)
    assert found.dual == pytest.approx(0.0, abs=1e-9)  # the residual has the wrong sign: no scale of it helps
    assert found.relative_gap > 1


def test_zero_is_optimal_from_the_largest_beta_on():
    assert largest_beta(scalar(1.0)) == pytest.approx(2.0)
    for beta in (2.0, 3.0, 50.0):
        found = certify(scalar(beta), scalar(beta).no_heads())
        assert found.gap == pytest.approx(0.0, abs=1e-9)
        assert found.slack <= 1
        assert solve(scalar(beta)).heads.count == 0
    assert solve(scalar(1.9)).heads.count == 1


def test_targets_of_zero_have_a_gap_of_zero():
    found = certify(problem(torch.ones(2, 1, 1).double(), torch.zeros(2, 1, 1).double(), 0.1), head(0.0))
    assert (found.primal, found.dual, found.relative_gap) == (0.0, 0.0, 0.0)


def orthonormal(beta: float) -> tuple[Problem, torch.Tensor]:
    """Features with the identity as second moment: the optimum is soft-thresholded regression."""
    generator = GENERATOR().manual_seed(0)
    features = torch.linalg.qr(torch.randn(12, 5, generator=generator, dtype=torch.float64)).Q * math.sqrt(12)
    targets = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    u, values, v = torch.linalg.svd(features.T @ targets / 12, full_matrices=False)
    best = u @ torch.diag((values - beta).clamp(min=0)) @ v
    return problem(features[:, None], targets[:, None], beta), best


@pytest.mark.parametrize("solver", ["greedy", "lifted", "burer-monteiro"])
def test_orthonormal_features_give_soft_thresholded_regression(solver):
    given, best = orthonormal(0.2)
    assert 0 < torch.linalg.matrix_rank(best) < 4
    assert certify(given, Heads((from_lifted(best, 1),))).relative_gap < 1e-12
    found = solve(given, solver=solver, tol=1e-9)
    assert found.stopped == "certified"
    assert found.certificate.heads == torch.linalg.matrix_rank(best)
    torch.testing.assert_close(found.heads.terms[0].lift(), best, rtol=0, atol=1e-4)


def test_heads_of_even_classes_cannot_beat_the_entropy_of_noise():
    labels = torch.tensor([0, 1] * 3)
    term = terms(Linear(), Sizes(1, 2, 2), None, GENERATOR(), torch.float64)
    loss = CrossEntropy(labels, torch.ones(6, dtype=torch.float64), 2)
    given = Problem(torch.ones(6, 1, 2).double(), loss, Linear(), term, 0.1, dtype=torch.float64)
    found = certify(given, given.no_heads())
    assert found.primal == pytest.approx(math.log(2))
    assert found.dual == pytest.approx(math.log(2))


def test_too_few_heads_have_a_gap_that_covers_the_true_one():
    generator = GENERATOR().manual_seed(1)
    tokens = torch.randn(6, 3, 3, generator=generator, dtype=torch.float64) / 2
    targets = torch.randn(6, 3, 2, generator=generator, dtype=torch.float64)
    given = problem(tokens, targets, 0.05, AttentionBlock(), pooled=False)
    best = solve(given, tol=1e-6).certificate.primal
    for heads in (1, 2):
        start = Heads(
            (
                Factors(
                    torch.randn(heads, 9, generator=generator, dtype=torch.float64),
                    torch.randn(heads, 3, 2, generator=generator, dtype=torch.float64),
                ),
            )
        )
        spurious = polish(given.value_and_gradient, start, 500)
        found = certify(given, spurious.heads)
        assert found.primal - best > 1e-4
        assert found.gap >= found.primal - best
        assert found.slack > 1.01
        assert "more heads" in found.advice


def test_advice_says_what_is_known_and_what_to_do():
    sure = Certificate(1.0005, 1.0, "exact", 1.0, 3)
    assert sure.advice == "The objective is above the global optimum by at most 0.05 %."
    assert "one in a million" in replace(sure, kind="probable").advice
    assert "as far as a search could tell" in replace(sure, kind="heuristic").advice
    assert "float64" in replace(sure, stuck=True).advice
    loose = Certificate(2.0, 1.0, "exact", 1.7, 3)
    assert "100 %" in loose.advice
    assert "slack 1.7" in loose.advice
    assert "unknown share" in Certificate(2.0, -1.0, "exact", 1.7, 3).advice


@pytest.mark.parametrize("peak", [0.3, 0.99989, 0.99991, 0.999999, 1.0, 5.0])
def test_the_best_scale_of_a_concave_function_is_missed_by_a_ten_thousandth_at_most(peak):
    found = certificate._greatest(lambda scale: 2 * scale / peak - (scale / peak) ** 2, 1.0)
    best = 1.0 if peak <= 1 else 2 / peak - 1 / peak**2
    assert best * (1 - 1.001e-4) <= found <= best * (1 + 1e-12)
