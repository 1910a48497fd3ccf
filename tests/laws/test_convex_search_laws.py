"""What holds for the search of new heads, and for maps of all terms at once, whatever the block and the loss."""

from dataclasses import replace

import pytest
import torch
from convex_problems import LOSSES, problem, some_heads

from vitscope.convex.block import BLOCKS, Sizes
from vitscope.convex.certificate import Certificate, dual_value
from vitscope.convex.gates import terms
from vitscope.convex.heads import Heads
from vitscope.convex.loss import Squared
from vitscope.convex.problem import Problem
from vitscope.convex.solver import Progress, choose_solver, solve
from vitscope.convex.solvers.greedy import Greedy
from vitscope.convex.solvers.lifted import LiftedFista, threshold_singular_values
from vitscope.convex.solvers.parts.polish import polish
from vitscope.convex.solvers.parts.restricted import restrict, whole
from vitscope.convex.solvers.parts.search import decompose_gradient, follow_gradient

CASES = [(block, gates, loss) for block in BLOCKS for gates in (None, 2) for loss in LOSSES]


def searched(block: str, gates: int | None, loss: str):
    """A problem, heads of it, and the space that they span."""
    asked = problem(block, gates, loss)
    heads = some_heads(asked, 2, 0.5, 0).compress()
    return asked, heads, restrict(asked, [factors.left for factors in heads.terms])


@pytest.mark.parametrize(("block", "gates", "loss"), CASES)
def test_what_is_followed_is_at_most_what_a_decomposition_finds(block, gates, loss):
    asked, heads, space = searched(block, gates, loss)
    here = space.coordinates(heads)
    sure, quick = decompose_gradient(space, here, 40), follow_gradient(space, here)
    assert sure.certain
    assert quick.primal == pytest.approx(sure.primal)
    assert quick.primal == pytest.approx(asked.value(heads))
    assert quick.dual >= sure.dual - 1e-12
    for followed_, found in zip(quick.terms, sure.terms, strict=True):
        assert followed_.top.bound <= found.top.bound * (1 + 1e-9)


@pytest.mark.parametrize(("block", "gates", "loss"), CASES)
def test_in_a_whole_space_a_search_that_follows_is_a_decomposition(block, gates, loss):
    asked, heads, _ = searched(block, gates, loss)
    space = whole(asked)
    quick, sure = follow_gradient(space, heads), decompose_gradient(space, heads, 40)
    assert quick.certain
    assert quick.dual == pytest.approx(sure.dual)
    for followed_, found in zip(quick.terms, sure.terms, strict=True):
        shared = min(len(followed_.top.values), len(found.top.values))
        torch.testing.assert_close(followed_.top.values[:shared], found.top.values[:shared])


@pytest.mark.parametrize(("block", "gates", "loss"), CASES)
def test_followed_vectors_are_singular_vectors_of_the_gradient_on_their_right_side(block, gates, loss):
    asked, heads, space = searched(block, gates, loss)
    search = follow_gradient(space, space.coordinates(heads))
    residual = asked.gradient(search.outputs)
    for term, found in enumerate(search.terms):
        image, top = asked.image(residual, term), found.top
        torch.testing.assert_close(top.right @ image.T, top.values[:, None] * top.left)
        torch.testing.assert_close(top.left @ top.left.T, torch.eye(len(top.left), dtype=torch.float64))


def test_heads_outside_of_what_is_followed_are_found_by_a_decomposition_before_a_certificate():
    """The first heads are the best of one term; another term is out of sight until the gradient is decomposed."""
    asked = problem("mlp", 2, "squared pooled", beta=0.05)
    alone = Greedy(whole=0, rarer=1e12).solve(asked, tol=1e-8)
    assert alone.stopped == "certified"
    assert alone.certificate.primal == pytest.approx(
        solve(asked, solver="lifted", tol=1e-9).certificate.primal, rel=1e-7
    )


def of_one_token(asked: Problem) -> Problem:
    return replace(asked, tokens=asked.tokens[:, :1])


JOINT = {
    "token-wise": problem("mlp", 3, "squared token-wise"),
    "one token": of_one_token(problem("mlp", 3, "cross-entropy")),
}


@pytest.mark.parametrize("asked", JOINT.values(), ids=JOINT)
def test_a_map_of_all_terms_at_once_is_theirs_one_by_one(asked):
    joint, heads = asked.joint(), some_heads(asked, 2, 0.5, 0)
    lifted = torch.stack([factors.lift() for factors in heads.terms])
    torch.testing.assert_close(joint.outputs(lifted), asked.outputs(heads))
    residual = asked.gradient(asked.outputs(heads))
    images = torch.stack([asked.image(residual, term) for term in range(len(asked.terms))])
    torch.testing.assert_close(joint.images(residual), images)


def test_there_is_no_such_map_of_what_does_not_fit_or_has_no_gates():
    asked = JOINT["token-wise"]
    assert replace(asked, memory=10).joint() is None
    assert problem("mlp", None, "squared token-wise").joint() is None
    assert problem("mlp", 3, "squared pooled").joint() is None


def test_polishing_ends_where_it_is_told_to_and_is_asked_after_every_step():
    asked, values, told = problem("attention", None, "cross-entropy"), list[float](), list[float]()

    def objective(heads: Heads) -> tuple[float, Heads]:
        value, gradient = asked.value_and_gradient(heads)
        values.append(value)
        return value, gradient

    def until() -> bool:
        told.append(values[-1])
        return len(told) == 4

    found = polish(objective, some_heads(asked, 2, 0.5, 0), 100, until=until)
    assert found.passes == len(values) < 12
    assert told == sorted(told, reverse=True)
    assert found.value == told[-1]


@pytest.mark.parametrize(("block", "gates", "loss"), CASES)
def test_a_point_of_a_whole_space_knows_the_objective_its_gradient_and_about_the_bound(block, gates, loss):
    asked, heads, _ = searched(block, gates, loss)
    point, sure = whole(asked).at(heads), decompose_gradient(whole(asked), heads, 40)
    expected, gradient = asked.value_and_gradient(heads)
    assert point.value == pytest.approx(expected)
    torch.testing.assert_close(point.gradient.vector, gradient.vector)
    scale = asked.beta / max(point.norm, asked.beta)
    assert point.norm == pytest.approx(max(found.top.bound for found in sure.terms))
    assert point.bound == pytest.approx(point.loss - scale * float((point.residual * point.outputs).sum()))
    assert dual_value(asked, point.outputs, point.norm) <= point.bound + 1e-12


@pytest.mark.parametrize(("outputs", "solver"), [(1, LiftedFista), (2, Greedy)])
def test_gates_of_one_output_are_trained_together(outputs, solver):
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(8, 1, 3, generator=random, dtype=torch.float64)
    loss = Squared(torch.randn(8, 1, outputs, generator=random, dtype=torch.float64), torch.ones(8))
    gates = terms(BLOCKS["mlp"](), Sizes(1, 3, outputs), 5, random, torch.float64)
    assert isinstance(choose_solver(Problem(tokens, loss, BLOCKS["mlp"](), gates, 0.1, dtype=torch.float64)), solver)


@pytest.mark.parametrize("shape", [(3, 5, 1), (3, 1, 4), (3, 5, 4)])
def test_thresholding_lowers_singular_values_one_matrix_at_a_time(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lowered, norms = threshold_singular_values(matrices, 1.0)
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    expected = (values - 1).clamp(min=0)
    torch.testing.assert_close(lowered, u @ torch.diag_embed(expected) @ v)
    assert float(norms) == pytest.approx(float(expected.sum()))


def test_a_certificate_that_was_refused_is_asked_for_again_when_the_estimated_gap_has_halved(monkeypatch):
    made: list[Heads] = []

    def counted(asked: Problem, heads: Heads) -> Certificate:
        made.append(heads)
        return Certificate(1.0, 0.5, "exact", 1.0, heads.count)

    monkeypatch.setattr("vitscope.convex.solver.certify", counted)
    asked = problem("linear", None, "squared pooled")
    progress = Progress(asked, asked.no_heads(), 0.1, 100, None)
    for primal, estimate, certificates in [(1.2, 1.0, 0), (1.08, 1.0, 1), (1.07, 1.0, 1), (1.04, 1.0, 2)]:
        progress.record(some_heads(asked, 1, 1.0, 0), primal, estimate, certain=False)
        assert not progress.certified()
        assert len(made) == certificates
    assert progress.dual == -float("inf")
    assert progress.history[-1].estimate == 1.0


def test_of_points_equally_low_but_for_rounding_the_one_with_the_best_bound_is_kept():
    asked = problem("linear", None, "squared pooled", dtype=torch.float32)
    progress = Progress(asked, asked.no_heads(), 0.1, 100, None)
    points = [(1.0, 0.5), (1.0 + 5e-8, 0.9), (1.0 + 1e-5, 0.95), (1.0 - 5e-8, 0.8)]
    heads = [some_heads(asked, 1, 1.0, seed) for seed in range(len(points))]
    kept = []
    for each, (primal, estimate) in zip(heads, points, strict=True):
        progress.record(each, primal, estimate, certain=False)
        kept.append(heads.index(progress.heads))
    assert kept == [0, 1, 1, 1]
    assert [step.primal for step in progress.history] == [1.0, 1.0, 1.0, 1.0 - 5e-8]
