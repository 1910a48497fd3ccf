"""Heads, losses and gates of convex heads, by pencil and paper and against torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from vitscope.convex.block import Sizes
from vitscope.convex.blocks.block_fno import BlockFno
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.gates import check_activation, split, terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.solvers.lifted import from_lifted
from vitscope.measurement.errors import UserError

ALL = slice(None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def factors(heads: int, left: int, inner: int, outputs: int, seed: int = 0) -> Factors:
    return Factors(normal(heads, left, seed=seed), normal(heads, inner, outputs, seed=seed + 1))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 9),
    left=st.integers(1, 7),
    inner=st.integers(1, 3),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_compressed_heads_are_balanced_and_as_many_as_the_rank(count, left, inner, outputs, seed):
    heads = factors(count, left, inner, outputs, seed)
    fewer = heads.compress()
    lifted = heads.left.T @ heads.right.flatten(1)
    values = torch.linalg.svdvals(lifted)
    torch.testing.assert_close(fewer.lift(), lifted, rtol=1e-9, atol=1e-9)
    assert len(fewer) == int((values > 1e-12 * values[0]).sum())
    assert fewer.half_squares == pytest.approx(float(values.sum()), rel=1e-9)
    assert heads.half_squares >= float(values.sum()) * (1 - 1e-12)
    torch.testing.assert_close(
        heads.singular_values()[: len(values)], values[: min(count, *lifted.shape)], rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(fewer.left.norm(dim=1), fewer.right.flatten(1).norm(dim=1), rtol=1e-9, atol=1e-9)
    assert torch.equal(fewer.left.norm(dim=1), fewer.left.norm(dim=1).sort(descending=True).values)


def test_two_heads_of_one_direction_become_one():
    left = torch.tensor([[3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)
    right = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    merged = Factors(left, right).compress()
    assert merged.lift().flatten().tolist() == pytest.approx([-3, -4])
    assert (len(merged), merged.half_squares) == (1, pytest.approx(5))


def test_small_singular_values_are_dropped_at_the_tolerance():
    heads = Factors(torch.diag(torch.tensor([1.0, 1e-3, 1e-6])), torch.eye(3)[:, None])
    assert [len(heads.compress(tolerance)) for tolerance in (0.0, 1e-4, 1e-2)] == [3, 2, 1]
    assert heads.compress().left.dtype == torch.float32


@pytest.mark.parametrize("gone", [factors(0, 3, 2, 2), Factors(torch.zeros(4, 3), torch.zeros(4, 2, 2))])
def test_no_heads_and_heads_of_zeros_are_no_heads(gone):
    fewer = gone.compress()
    assert (len(fewer), fewer.half_squares) == (0, 0)
    assert (fewer.left.shape[1], fewer.right.shape[1:]) == (3, (2, 2))
    assert float(gone.singular_values().sum()) == 0
    assert torch.equal(gone.lift(), torch.zeros(3, 4, dtype=gone.left.dtype))


@pytest.mark.parametrize(("rank", "inner"), [(1, 1), (2, 2), (3, 4)])
def test_a_lifted_variable_is_rebuilt_by_as_many_heads_as_its_rank(rank, inner):
    lifted = normal(5, rank, seed=rank) @ normal(rank, 4, seed=9)
    heads = from_lifted(lifted, inner)
    assert (len(heads), heads.right.shape[1:]) == (rank, (inner, 4 // inner))
    torch.testing.assert_close(heads.lift(), lifted, rtol=1e-11, atol=1e-11)
    assert heads.half_squares == pytest.approx(float(torch.linalg.svdvals(lifted).sum()))
    assert len(from_lifted(torch.zeros(5, 4, dtype=torch.float64), inner)) == 0


def test_the_weights_of_all_terms_go_in_a_row_and_back():
    heads = Heads((factors(2, 3, 1, 2), factors(0, 4, 2, 1), factors(1, 2, 2, 2, seed=5)))
    assert (heads.count, len(heads.vector)) == (3, 2 * 5 + 1 * 6)
    back = heads.with_vector(heads.vector.clone())
    assert all(
        torch.equal(mine.left, other.left) and torch.equal(mine.right, other.right)
        for mine, other in zip(back.terms, heads.terms, strict=True)
    )
    twice = heads.with_vector(2 * heads.vector)
    assert twice.half_squares == pytest.approx(4 * heads.half_squares)
    assert twice.nuclear_norm == pytest.approx(4 * heads.nuclear_norm)
    assert heads.half_squares == pytest.approx(float(heads.vector.square().sum()) / 2)
    assert heads.join([part.compress() for part in heads.terms]).nuclear_norm == pytest.approx(2 * heads.nuclear_norm)
    assert heads.compress().half_squares == pytest.approx(heads.nuclear_norm)


def losses(seed: int = 0) -> list[CrossEntropy | Squared]:
    weights = torch.rand(5, generator=generator(seed), dtype=torch.float64) + 0.5
    labels = torch.randint(4, (5,), generator=generator(seed))
    return [CrossEntropy(labels, weights, 4), Squared(normal(5, 1, 4, seed=seed), weights)]


@pytest.mark.parametrize("loss", losses())
@pytest.mark.parametrize("index", [ALL, slice(1, 3)])
def test_losses_and_their_gradients_are_those_of_torch(loss, index):
    outputs = normal(5, 1, 4, seed=3)[index].requires_grad_()
    if isinstance(loss, CrossEntropy):
        each = torch.nn.functional.cross_entropy(outputs[:, 0], loss.labels[index], reduction="none")
    else:
        each = torch.nn.functional.mse_loss(outputs, loss.targets[index], reduction="none").sum((1, 2)) / 2
    value = (each * loss.weights[index]).sum() / 5
    (slopes,) = torch.autograd.grad(value, outputs)
    torch.testing.assert_close(loss.value(outputs.detach(), index), value.detach())
    torch.testing.assert_close(loss.gradient(outputs.detach(), index), slopes)


def conjugate(loss: CrossEntropy | Squared, dual: torch.Tensor) -> float:
    """``sup_f <dual, f> - loss(f)``, found numerically from zero."""

    def falling(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).view_as(dual)
        value = loss.value(point, ALL) - (point * dual).sum()
        return float(value), (loss.gradient(point, ALL) - dual).flatten().numpy()

    return -minimize(falling, np.zeros(dual.numel()), jac=True, method="BFGS", options={"gtol": 1e-9}).fun


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.05, 1.0), seed=st.integers(0, 999), which=st.integers(0, 1))
def test_the_dual_value_is_minus_the_conjugate_at_the_scaled_gradient(scale, seed, which):
    loss = losses(seed)[which]
    outputs = normal(5, 1, 4, seed=seed + 1)
    gradient = loss.gradient(outputs, ALL)
    assert loss.dual(outputs, ALL)(scale) == pytest.approx(-conjugate(loss, scale * gradient), rel=1e-5, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), which=st.integers(0, 1))
def test_by_fenchel_the_dual_value_is_the_loss_less_the_product_with_the_outputs(seed, which):
    loss, outputs = losses(seed)[which], normal(5, 1, 4, seed=seed + 1)
    product = float((loss.gradient(outputs, ALL) * outputs).sum())
    assert loss.dual(outputs, ALL)(1.0) == pytest.approx(float(loss.value(outputs, ALL)) - product, rel=1e-9, abs=1e-12)
    assert loss.dual(outputs, ALL)(0.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("which", [0, 1])
def test_parts_add_up_and_weights_count_an_image_that_often(which):
    loss, outputs = losses()[which], normal(5, 1, 4, seed=3)
    for measured in (loss.value, lambda *at: torch.tensor(loss.dual(*at)(0.3), dtype=torch.float64)):
        parts = [measured(outputs[index], index) for index in (slice(0, 2), slice(2, 5))]
        torch.testing.assert_close(sum(parts), measured(outputs, ALL))
    doubled = replace(loss, weights=2 * loss.weights)
    torch.testing.assert_close(doubled.value(outputs, ALL), 2 * loss.value(outputs, ALL))
    torch.testing.assert_close(doubled.gradient(outputs, ALL), 2 * loss.gradient(outputs, ALL))
    assert doubled.dual(outputs, ALL)(0.3) == pytest.approx(2 * loss.dual(outputs, ALL)(0.3))
    only = replace(loss, weights=torch.tensor([0, 0, 5.0, 0, 0], dtype=torch.float64))
    assert float(only.gradient(outputs, ALL)[[0, 1, 3, 4]].abs().max()) == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), which=st.integers(0, 1))
def test_curvature_bounds_every_second_derivative_and_is_reached(seed, which):
    loss, outputs = losses(seed)[which], normal(5, 1, 4, seed=seed)
    hessian = torch.autograd.functional.hessian(lambda flat: loss.value(flat.view(5, 1, 4), ALL), outputs.flatten())
    assert 5 * float(torch.linalg.eigvalsh(hessian)[-1]) <= loss.curvature * (1 + 1e-9)
    even = CrossEntropy(torch.zeros(1, dtype=torch.int64), torch.ones(1), 2)
    split_even = torch.autograd.functional.hessian(lambda flat: even.value(flat.view(1, 1, 2), ALL), torch.zeros(2))
    assert float(torch.linalg.eigvalsh(split_even)[-1]) == pytest.approx(even.curvature)


@pytest.mark.parametrize(
    ("count", "groups", "sizes"), [(6, 3, [2, 2, 2]), (7, 3, [3, 2, 2]), (5, 3, [2, 2, 1]), (2, 2, [1, 1]), (4, 1, [4])]
)
def test_groups_are_nearly_equal_and_cover_everything(count, groups, sizes):
    parts = split(count, groups)
    assert [part.stop - part.start for part in parts] == sizes
    assert torch.cat([torch.arange(count)[part] for part in parts]).tolist() == list(range(count))


def test_gates_follow_their_seed_and_every_group_has_its_own():
    sizes = Sizes(4, 5, 3)
    drawn = terms(BlockFno(blocks=2), sizes, 3, generator(1), torch.float64)
    assert len(drawn) == 6
    assert [term.vector.shape for term in drawn[:2]] == [(4 * 3,), (4 * 2,)]
    again = terms(BlockFno(blocks=2), sizes, 3, generator(1), torch.float64)
    other = terms(BlockFno(blocks=2), sizes, 3, generator(2), torch.float64)
    assert all(torch.equal(one.vector, two.vector) for one, two in zip(drawn, again, strict=True))
    assert not any(torch.equal(one.vector, two.vector) for one, two in zip(drawn, other, strict=True))
    single = terms(BlockFno(blocks=2), sizes, 3, generator(1), torch.float32)
    assert all(torch.equal(one.vector.float(), two.vector) for one, two in zip(drawn, single, strict=True))
    assert [term.vector for term in terms(Mlp(), sizes, None, generator(), torch.float32)] == [None]


@pytest.mark.parametrize(
    ("block", "gates", "said"),
    [(Mlp(), 0, "gates is 0; give 1 or more"), (BlockFno(blocks=4), 1, "3 outputs; give at most 3")],
)
def test_impossible_gates_and_groups_are_refused(block, gates, said):
    with pytest.raises(UserError, match=said):
        terms(block, Sizes(4, 5, 3), gates, generator(), torch.float64)


def test_activations_by_name():
    assert check_activation("gated-relu") == "gated-relu"
    with pytest.raises(UserError, match="linear, gated-relu, relu"):
        check_activation("softmax")


def problem(block, tokens, outputs=3, pooled=True, beta=0.1) -> Problem:
    images, count, dim = tokens.shape
    targets = normal(images, 1 if pooled else count, outputs, seed=7)
    parts = terms(block, Sizes(count, dim, outputs), None, generator(), torch.float64)
    return Problem(
        tokens, Squared(targets, torch.ones(images).double()), block, parts, beta, pooled, dtype=torch.float64
    )


def test_uneven_groups_of_a_block_fno_read_and_write_only_their_own():
    tokens = normal(3, 4, 5)
    grouped = problem(BlockFno(blocks=2), tokens, pooled=False)
    assert [grouped.shape(term) for term in grouped.terms] == [(12, 1, 2), (8, 1, 1)]
    heads = Heads((factors(2, 12, 1, 2), factors(3, 8, 1, 1, seed=5)))
    first = problem(Fno(), tokens[:, :, :3], 2, pooled=False).outputs(Heads(heads.terms[:1]))
    second = problem(Fno(), tokens[:, :, 3:], 1, pooled=False).outputs(Heads(heads.terms[1:]))
    torch.testing.assert_close(grouped.outputs(heads), torch.cat((first, second), 2))


def test_a_pooled_fno_without_gates_is_a_linear_head_at_a_smaller_penalty():
    tokens, linear = normal(6, 4, 3), factors(2, 3, 1, 3).compress()
    spread = Factors(linear.left.repeat(1, 4) / 4, linear.right)
    fno, plain = problem(Fno(), tokens, beta=0.1), problem(Linear(), tokens, beta=0.1 / 4**0.5)
    torch.testing.assert_close(fno.outputs(Heads((spread,))), plain.outputs(Heads((linear,))))
    assert fno.value(Heads((spread,))) == pytest.approx(plain.value(Heads((linear,))))
    residual = normal(6, 1, 3, seed=8)
    lefts = torch.eye(12, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    norms = [
        float(torch.linalg.matrix_norm(one.pull_right(residual, 0, left).flatten(1), 2)) / one.beta
        for one, left in zip((fno, plain), lefts, strict=True)
    ]
    assert norms[0] == pytest.approx(norms[1])


def test_without_heads_the_outputs_are_zero_and_the_value_is_the_loss_of_zero():
    empty = problem(Mlp(), normal(3, 4, 5))
    heads = empty.no_heads()
    assert float(empty.outputs(heads).abs().max()) == 0
    assert empty.value(heads) == pytest.approx(float(empty.loss.targets.square().sum()) / 6)
    value, gradient = empty.value_and_gradient(heads)
    assert (value, gradient.count) == (pytest.approx(empty.value(heads)), 0)
