"""ReLU heads: certificates and solutions against cvxpy, random search and the plain network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.convex import blocks
from vitscope.convex.arrangements import arrangements, lifted_data
from vitscope.convex.block import BLOCKS, Sizes
from vitscope.convex.blocks.attention import AttentionBlock
from vitscope.convex.blocks.block_fno import BlockFno
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.certificate import certify
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.relu_norm import climb, relu_norms
from vitscope.convex.solver import solve
from vitscope.convex.solvers.parts.polish import polish
from vitscope.convex.solvers.relu import Relu, tidy
from vitscope.runs.registry import import_all

import_all(blocks.__name__)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(block, sizes=(5, 2, 1, 2), beta=0.3, seed=0, pooled=False, scale=1.0, **changed) -> Problem:
    """``sizes`` are images, tokens, dim and outputs; the objective is a mean, so ``beta`` of a sum is divided."""
    images, count, dim, outputs = sizes
    targets = normal(images, 1 if pooled else count, outputs, seed=seed + 1000)
    parts = terms(block, Sizes(count, dim, outputs), None, torch.Generator(), torch.float64)
    loss = Squared(targets, torch.ones(images, dtype=torch.float64))
    made = Problem(scale * normal(images, count, dim, seed=seed), loss, block, parts, beta / images, pooled, True)
    return replace(made, dtype=torch.float64, **changed)


def random_heads(problem: Problem, count: int, seed: int = 0) -> Heads:
    found = []
    for at, term in enumerate(problem.terms):
        left, inner, outputs = problem.shape(term)
        found.append(Factors(normal(count, left, seed=seed + at), normal(count, inner, outputs, seed=seed + 70 + at)))
    return Heads(tuple(found))


def trained(problem: Problem, count: int, seed: int = 0) -> Heads:
    """The plain ReLU network, from random weights, by L-BFGS."""
    small = random_heads(problem, count, seed)
    return polish(problem.value_and_gradient, small.with_vector(0.3 * small.vector), 200, 1e-9).heads


def grid_optimum(fno: Problem, points: int) -> float:
    """cvxpy's optimum with left weights on a circle of ``points`` directions and every ray on which a gate changes."""
    cvxpy = pytest.importorskip("cvxpy")
    data = lifted_data(fno, 0).numpy()
    turns = np.concatenate([np.linspace(0, 2 * np.pi, points), np.arctan2(data[:, 0], -data[:, 1])])
    rays = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    features = np.maximum(data @ np.concatenate((rays, -rays)).T, 0)
    rights = cvxpy.Variable((features.shape[1], fno.sizes.outputs))
    targets = fno.loss.targets.flatten(0, 1).numpy()
    penalty = fno.beta * cvxpy.sum(cvxpy.norm(rights, axis=1))
    risk = cvxpy.sum_squares(features @ rights - targets) / (2 * len(fno.tokens))
    return float(cvxpy.Problem(cvxpy.Minimize(risk + penalty)).solve(solver="CLARABEL"))


def unconstrained_optimum(fno: Problem) -> float:
    """cvxpy's optimum over all patterns without the cones: below that of ReLU."""
    cvxpy = pytest.importorskip("cvxpy")
    data = lifted_data(fno, 0)
    found = arrangements(data)
    masks = (found.vectors @ found.basis.T @ data.T >= 0).double().numpy()
    lifted = [cvxpy.Variable((2, fno.sizes.outputs)) for _ in masks]
    outputs = sum((mask[:, None] * data.numpy()) @ one for mask, one in zip(masks, lifted, strict=True))
    risk = cvxpy.sum_squares(outputs - fno.loss.targets.flatten(0, 1).numpy()) / (2 * len(fno.tokens))
    penalty = fno.beta * sum(cvxpy.normNuc(one) for one in lifted)
    return float(cvxpy.Problem(cvxpy.Minimize(risk + penalty)).solve(solver="CLARABEL"))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fourier_head_reaches_the_optimum_of_cvxpy(seed):
    fno = problem(Fno(), seed=seed)
    found = solve(fno, tol=1e-6)
    assert len(arrangements(lifted_data(fno, 0))) == 20  # 2 n s, the bound
    assert (found.stopped, found.certificate.kind) == ("certified", "exact")
    assert found.certificate.slack == pytest.approx(1, abs=1e-4)
    assert 0 <= found.certificate.gap <= 1e-6 * found.certificate.primal
    above = grid_optimum(fno, 400)
    assert found.certificate.dual <= above * (1 + 1e-7)
    assert found.certificate.primal == pytest.approx(above, rel=1e-4)
    assert unconstrained_optimum(fno) < found.certificate.dual
    assert fno.value(found.heads) == pytest.approx(found.certificate.primal)


def test_a_network_that_is_stuck_is_told_so_and_more_heads_get_it_away():
    fno = problem(Fno(), seed=3)
    few, many = certify(fno, trained(fno, 3)), certify(fno, trained(fno, 20))
    best = solve(fno, tol=1e-4).certificate
    assert few.slack > 1.05
    assert few.primal > best.primal * 1.01
    assert few.gap >= few.primal - best.primal
    assert "spurious" in few.advice
    assert many.primal == pytest.approx(best.primal, rel=2e-3)
    assert many.gap < few.gap / 3
    rescued = solve(fno, trained(fno, 3), tol=1e-4).certificate
    assert rescued.primal == pytest.approx(best.primal, rel=2e-4)


def test_more_attention_heads_close_the_certified_gap():
    attention = problem(AttentionBlock(), (2, 3, 2, 1), beta=0.1, seed=2)
    gaps = [certify(attention, trained(attention, count)) for count in (1, 4, 16)]
    best = solve(attention, tol=1e-2).certificate
    assert best.relative_gap <= 1e-2
    assert gaps[0].primal > gaps[1].primal >= gaps[2].primal * (1 - 1e-6)
    assert gaps[0].gap > gaps[1].gap
    assert all(best.dual * (1 - 1e-9) <= each.primal and each.dual <= best.primal * (1 + 1e-9) for each in gaps)


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(sorted(BLOCKS)), pooled=st.booleans(), count=st.integers(0, 4), seed=st.integers(0, 99))
def test_the_dual_is_never_above_the_optimum(name, pooled, count, seed):
    small = problem(BLOCKS[name](), (2, 2, 2, 2), seed=seed, pooled=pooled)
    found, best = certify(small, random_heads(small, count, seed)), solve(small, tol=1e-2, max_passes=200).certificate
    assert found.kind == best.kind == "exact"
    assert found.dual <= best.primal * (1 + 1e-9)
    assert found.primal >= best.dual * (1 - 1e-9)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("pooled", [True, False])
def test_no_direction_is_steeper_than_the_norm_of_a_residual(name, pooled):
    small = problem(BLOCKS[name](), (2, 2, 2, 3), pooled=pooled)
    residual = normal(2, small.rows, 3, seed=5)
    for at, norm in enumerate(relu_norms(small)):
        lefts = torch.nn.functional.normalize(normal(300, small.shape(small.terms[at])[0], seed=6), dim=1)
        lengths = small.pull_right(residual, at, climb(small, residual, at, lefts)).flatten(1).norm(dim=1)
        top = norm.largest(residual, lefts[:2], 4)
        assert top.probability == 0
        assert float(lengths.max()) <= top.bound * (1 + 1e-9)
        assert float(lengths.max()) == pytest.approx(top.bound, rel=1e-3)
        direct = small.pull_right(residual, at, top.left).flatten(1)
        torch.testing.assert_close(direct, top.values[:, None] * top.right)
        assert float(top.values[0]) == pytest.approx(top.bound)


@pytest.mark.parametrize(
    ("dim", "images", "outputs", "kind"),
    [(12, 12, 3, "bound"), (12, 12, 1, "exact"), (6, 40, 2, "heuristic")],
)
def test_what_cannot_be_searched_whole_is_bounded_or_called_heuristic(dim, images, outputs, kind):
    mlp = problem(Mlp(), (images, 1, dim, outputs), beta=2.0)
    found = certify(mlp, trained(mlp, 8))
    assert found.kind == kind
    assert found.dual <= found.primal
    (norm,) = relu_norms(mlp)
    assert norm.listed is None or not norm.listed.faces
    again = solve(mlp, trained(mlp, 8), tol=1e-2, max_passes=30).certificate
    assert found.dual <= again.primal <= found.primal * (1 + 1e-9)


def test_cross_entropy_groups_and_single_precision_are_certified_too():
    labels = torch.tensor([0, 1, 2, 0])
    grouped = problem(BlockFno(blocks=2), (4, 2, 2, 3), pooled=True, beta=0.05)
    grouped = replace(grouped, loss=CrossEntropy(labels, torch.ones(4, dtype=torch.float64), 3))
    double, single = (solve(replace(grouped, dtype=kind), tol=1e-3) for kind in (torch.float64, torch.float32))
    assert double.stopped == single.stopped == "certified"
    assert len(double.heads.terms) == 2
    assert single.heads.vector.dtype == torch.float32
    assert single.certificate.primal == pytest.approx(double.certificate.primal, rel=2e-3)


def test_the_same_again_and_a_watched_history():
    fno, steps = problem(Fno(), seed=1), []
    first, second = (solve(fno, tol=1e-2, watch=steps.append) for _ in range(2))
    assert torch.equal(first.heads.vector, second.heads.vector)
    assert len(steps) == 2 * len(first.history)
    primals, duals = zip(*((step.primal, step.dual) for step in first.history), strict=True)
    assert list(primals) == sorted(primals, reverse=True)
    assert list(duals) == sorted(duals)
    assert solve(fno, tol=1e-9, max_passes=5).stopped == "passes"


def test_tidy_heads_have_the_same_outputs_at_a_penalty_that_is_not_larger():
    fno = problem(Fno())
    heads = random_heads(fno, 3)
    (part,) = heads.terms
    doubled = Heads(
        (Factors(torch.cat((part.left, 2 * part.left, part.left)), torch.cat((part.right,) * 2 + (0 * part.right,))),)
    )
    fewer = tidy(doubled)
    torch.testing.assert_close(fno.outputs(fewer), fno.outputs(doubled))
    assert fewer.count == 3
    assert fewer.half_squares == pytest.approx(fewer.balanced_half_squares)
    assert fewer.half_squares <= doubled.balanced_half_squares * (1 + 1e-12)
    assert tidy(fno.no_heads()).count == 0


def test_zero_is_optimal_above_the_largest_beta_and_no_tokens_are_no_trouble():
    fno = problem(Fno())
    residual = fno.gradient(fno.outputs(fno.no_heads()))
    largest = relu_norms(fno)[0].largest(residual, fno.no_heads().terms[0].left, 1).bound
    above = certify(fno.with_beta(1.01 * largest), fno.no_heads())
    assert above.gap == pytest.approx(0, abs=1e-9)
    assert certify(fno.with_beta(0.9 * largest), fno.no_heads()).gap > 1e-4
    empty = replace(fno, tokens=torch.zeros(5, 2, 1, dtype=torch.float64))
    assert solve(empty).heads.count == 0


def test_automatic_choice_of_the_solver():
    fno = problem(Fno(), seed=1)
    assert torch.equal(solve(fno, tol=0.1).heads.vector, Relu().solve(fno, tol=0.1).heads.vector)
