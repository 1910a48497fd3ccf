"""What holds for every solver, block, activation and loss."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from convex_problems import LOSSES, problem, some_heads
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.convex.block import BLOCKS
from vitscope.convex.certificate import Certificate, certify, largest_beta
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import pull_image
from vitscope.convex.solver import SOLVERS, Progress, SolverStep, solve
from vitscope.convex.solvers.greedy import Greedy
from vitscope.convex.solvers.parts.polish import polish
from vitscope.convex.solvers.parts.restricted import is_whole, restrict
from vitscope.measurement.errors import UserError
from vitscope.runs.registry import import_all

import_all("vitscope.convex.blocks")
import_all("vitscope.convex.solvers")
LINEAR_SOLVERS = sorted(set(SOLVERS) - {"relu"})
CASES = {name: SOLVERS[name]() for name in LINEAR_SOLVERS} | {"greedy, no space whole": Greedy(whole=0)}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gates", [None, 2])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_all_solvers_reach_the_same_certified_optimum(block, gates, loss):
    asked = problem(block, gates, loss, beta=0.3)
    found = {name: solver.solve(asked, tol=1e-6, max_passes=20000) for name, solver in CASES.items()}
    assert {name: each.stopped for name, each in found.items()} == dict.fromkeys(CASES, "certified")
    values = [each.certificate.primal for each in found.values()]
    assert max(values) - min(values) <= 1e-6 * min(values)
    for each in found.values():
        assert each.certificate.kind == "exact"
        assert each.certificate.primal == pytest.approx(asked.value(each.heads), rel=1e-9)
        assert each.certificate == certify(asked, each.heads)


@settings(max_examples=12, deadline=None)
@given(
    block=st.sampled_from(sorted(BLOCKS)),
    gates=st.sampled_from([None, 2]),
    loss=st.sampled_from(LOSSES),
    beta=st.sampled_from([0.01, 0.1, 1.0]),
    count=st.integers(0, 3),
    scale=st.sampled_from([0.01, 0.3, 2.0]),
    seed=st.integers(0, 9),
)
def test_no_dual_value_is_above_the_objective_of_any_heads(block, gates, loss, beta, count, scale, seed):
    asked = problem(block, gates, loss, beta=beta, seed=seed)
    one = certify(asked, some_heads(asked, count, scale, seed))
    other = solve(asked, solver="greedy", tol=1e-2, max_passes=100).certificate
    rounding = 1e-9 * max(one.primal, 1)
    assert one.dual <= one.primal + rounding
    assert one.dual <= other.primal + rounding
    assert other.dual <= one.primal + rounding


@pytest.mark.parametrize("solver", CASES)
def test_history_tells_of_falling_objectives_and_rising_bounds(solver):
    seen: list[SolverStep] = []
    found = CASES[solver].solve(problem("attention", 2, "cross-entropy"), tol=1e-6, watch=seen.append)
    assert tuple(seen) == found.history
    assert len(seen) > 1
    for before, after in pairwise(seen):
        assert after.primal <= before.primal
        assert after.dual >= before.dual
        assert after.passes > before.passes
        assert after.seconds >= before.seconds
        assert after.estimate >= after.dual


@pytest.mark.parametrize("solver", CASES)
def test_an_interrupt_keeps_the_best_point_with_its_certificate(solver):
    seen: list[SolverStep] = []

    def watch(step: SolverStep) -> None:
        seen.append(step)
        if len(seen) == 2:
            raise KeyboardInterrupt

    asked = problem("attention", None, "cross-entropy")
    found = CASES[solver].solve(asked, watch=watch, tol=1e-12)
    assert found.stopped == "interrupted"
    assert found.certificate.primal == pytest.approx(seen[-1].primal)
    assert found.heads.count > 0
    assert found.certificate == certify(asked, found.heads)


def test_a_fit_is_stuck_after_rounds_without_a_way_down_not_after_notes():
    asked = problem("attention", None, "squared pooled")
    progress = Progress(asked, asked.no_heads(), tol=1e-6, max_passes=100, watch=None)
    for _ in range(5):
        progress.record(asked.no_heads(), 1.0, 0.1)
    assert [progress.stop_reason() for _ in range(4)] == [None, None, None, "stuck"]


def test_an_interrupt_of_the_last_certificate_makes_it_again(monkeypatch):
    calls = 0

    def interrupted_once(asked: Problem, heads: Heads) -> Certificate:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return certify(asked, heads)

    monkeypatch.setattr("vitscope.convex.solver.certify", interrupted_once)
    asked = problem("attention", None, "cross-entropy")
    found = solve(asked, tol=1e-12, max_passes=5)
    assert (found.stopped, calls) == ("interrupted", 2)
    assert found.certificate == certify(asked, found.heads)


def test_an_interrupt_while_polishing_keeps_the_best_weights():
    asked = problem("attention", None, "cross-entropy")
    calls = 0

    def interrupted(heads: Heads) -> tuple[float, Heads]:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return asked.value_and_gradient(heads)

    start = some_heads(asked, 2, 0.5, 0)
    found = polish(interrupted, start, 50)
    assert found.interrupted
    assert found.passes == 6
    assert found.value == pytest.approx(asked.value_and_gradient(found.heads)[0])
    assert found.value < asked.value_and_gradient(start)[0]


@pytest.mark.parametrize("solver", CASES)
def test_passes_are_limited(solver):
    found = CASES[solver].solve(problem("mixer", 2, "squared token-wise"), tol=1e-12, max_passes=15)
    assert found.stopped == "passes"
    assert found.history[-1].passes <= 15 + 60
    assert found.certificate.relative_gap > 1e-12


@pytest.mark.parametrize("solver", CASES)
def test_the_same_problem_has_the_same_solution_and_chunks_change_rounding_only(solver):
    asked = problem("attention", 2, "cross-entropy")
    first, again = (CASES[solver].solve(asked, tol=1e-5, max_passes=5000) for _ in range(2))
    assert torch.equal(first.heads.vector, again.heads.vector)
    other = CASES[solver].solve(problem("attention", 2, "cross-entropy", chunk=5), tol=1e-5, max_passes=5000)
    assert other.certificate.primal == pytest.approx(first.certificate.primal, rel=1e-5)


def test_a_float32_solve_that_can_go_no_further_says_so():
    asked = replace(problem("attention", 2, "squared pooled"), dtype=torch.float32, kept={})
    found = solve(asked, tol=1e-13)
    assert found.stopped == "stuck"
    assert "float64" in found.certificate.advice
    assert found.certificate.relative_gap < 1e-3


def test_without_memory_for_features_greedy_goes_on_by_burer_monteiro():
    asked = problem("attention", 2, "cross-entropy")
    found = solve(replace(asked, memory=100, kept={}), solver="greedy", tol=1e-6)
    assert found.stopped == "certified"
    assert found.certificate.primal == pytest.approx(solve(asked, tol=1e-6).certificate.primal, rel=2e-6)


@pytest.mark.parametrize("solver", LINEAR_SOLVERS)
def test_warm_starts_along_a_path_reach_what_cold_ones_reach(solver):
    asked = problem("fno", 2, "cross-entropy")
    betas = [largest_beta(asked) * share for share in (0.7, 0.3, 0.1)]
    warm, start = [], None
    for beta in betas:
        warm.append(solve(asked.with_beta(beta), start, solver=solver, tol=1e-6, max_passes=5000))
        start = warm[-1].heads
    for beta, each in zip(betas, warm, strict=True):
        cold = solve(asked.with_beta(beta), solver=solver, tol=1e-6, max_passes=5000)
        assert each.certificate.primal == pytest.approx(cold.certificate.primal, rel=2e-6)
    again = solve(asked.with_beta(betas[-1]), warm[-1].heads, solver=solver, tol=1e-5)
    assert len(again.history) == 1


def test_a_solver_for_other_heads_is_refused():
    with pytest.raises(UserError, match="use 'auto'"):
        solve(problem("linear", None, "squared pooled"), solver="relu")
    with pytest.raises(UserError, match="no solver named 'newton'"):
        solve(problem("linear", None, "squared pooled"), solver="newton")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gates", [None, 2])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_an_adjoint_image_written_out_is_that_of_every_right_weight(block, gates, loss):
    asked = problem(block, gates, loss)
    residual = asked.gradient(asked.outputs(some_heads(asked, 1, 1.0, 0)))
    for at, term in enumerate(asked.terms):
        _, inner, outputs = asked.shape(term)
        rights = torch.eye(inner * outputs, dtype=torch.float64).unflatten(1, (inner, outputs))
        torch.testing.assert_close(asked.image(residual, at), asked.pull_left(residual, at, rights).T)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gates", [None, 2])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_what_a_block_does_not_see_of_left_weights_changes_no_output(block, gates, loss):
    asked, mixed = problem(block, gates, loss), (block, gates, loss != "squared token-wise") == ("mixer", None, True)
    for at in range(len(asked.terms)):
        seen, heads = asked.visible_basis(at), some_heads(asked, 2, 1.0, at)
        assert (seen is not None) == mixed
        if seen is not None:
            torch.testing.assert_close(seen @ seen.T, torch.eye(len(seen), dtype=torch.float64))
            projected = Heads(tuple(Factors(f.left @ seen.T @ seen, f.right) for f in heads.terms))
            torch.testing.assert_close(asked.outputs(projected), asked.outputs(heads))
            residual = asked.gradient(asked.outputs(heads))
            operator = pull_image(asked, residual, at)
            assert operator.matrix.shape[0] == len(seen) < asked.shape(asked.terms[at])[0] == operator.left
            torch.testing.assert_close(
                operator.adjoint(torch.eye(operator.right).double()).T, asked.image(residual, at)
            )


@pytest.mark.parametrize("block", list(BLOCKS))
def test_a_restricted_problem_is_the_problem_on_its_space(block):
    asked = problem(block, 2, "squared token-wise")
    heads = some_heads(asked, 2, 0.5, 0)
    narrower = restrict(asked, [factors.left for factors in some_heads(asked, 1, 1.0, 1).terms])
    space = narrower.widen([factors.left for factors in heads.terms])
    coordinates = space.coordinates(heads)
    torch.testing.assert_close(space.heads(coordinates).vector, heads.vector)
    torch.testing.assert_close(space.outputs(coordinates), asked.outputs(heads))
    value, gradient = space.value_and_gradient(coordinates)
    expected, whole = asked.value_and_gradient(heads)
    assert value == pytest.approx(expected)
    torch.testing.assert_close(gradient.vector, space.coordinates(whole).vector)
    narrow, there = space.narrow(coordinates, [factors.left for factors in coordinates.terms])
    torch.testing.assert_close(narrow.outputs(there), asked.outputs(heads))
    for old, new in zip(space.bases, narrow.bases, strict=True):
        assert len(new) == (len(old) if is_whole(old) else 2)
