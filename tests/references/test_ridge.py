"""Ridge regression from moments against NumPy's least squares, and layers that read fewer features against theirs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.numerics.moments import scatter
from vitscope.numerics.ridge import find_dispensable, fold, others, ridge


def rows_of(seed: int, count: int, dim: int) -> np.ndarray:
    """Rows of correlated features at different scales, far from the origin."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((dim, dim)) * 10.0 ** generator.uniform(-1, 1, dim)
    return generator.standard_normal((count, dim)) @ mixing + 5 * generator.standard_normal(dim)


def in_batches(rows: np.ndarray, cuts: int):
    """The scatter of the rows, merged from batches."""
    parts = [scatter(torch.from_numpy(part)) for part in np.array_split(rows, cuts)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 1000), st.integers(4, 7), st.integers(1, 3), st.floats(1e-6, 10), st.integers(1, 4))
def test_the_ridge_is_least_squares_on_rows_that_the_penalty_adds(seed, dim, gone, penalty, cuts):
    rows = rows_of(seed, 40, dim)
    order = np.random.default_rng(seed).permutation(dim)
    kept, removed = np.sort(order[gone:]), np.sort(order[:gone])
    inputs, outputs = rows[:, kept], rows[:, removed]
    level = penalty * inputs.var(0).mean()
    added = np.sqrt(len(rows) * level) * np.eye(len(kept))
    left = np.vstack([inputs - inputs.mean(0), added])
    right = np.vstack([outputs - outputs.mean(0), np.zeros((len(kept), gone))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0]
    weight, offset = ridge(in_batches(rows, cuts), torch.from_numpy(kept), torch.from_numpy(removed), penalty)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(
        offset.numpy(), outputs.mean(0) - inputs.mean(0) @ expected, rtol=1e-6, atol=1e-6 * scale * np.abs(rows).max()
    )


def test_by_pencil_and_paper():
    """R = 2 K + 3 at K = 0, 1, 2: variance 2/3, covariance 4/3; a penalty of half the variance makes the slope 4/3."""
    seen = scatter(torch.tensor([[0.0, 3.0], [1.0, 5.0], [2.0, 7.0]], dtype=torch.float64))
    kept, removed = torch.tensor([0]), torch.tensor([1])
    weight, offset = ridge(seen, kept, removed, 0.0)
    assert (weight.item(), offset.item()) == pytest.approx((2, 3))
    weight, offset = ridge(seen, kept, removed, 0.5)
    assert (weight.item(), offset.item()) == pytest.approx((4 / 3, 5 - 4 / 3))


def test_features_that_do_not_vary_are_told_by_their_mean():
    seen = scatter(torch.tensor([[4.0, 1.0], [4.0, 3.0]]))
    for penalty in (0.0, 1e-3):
        weight, offset = ridge(seen, torch.tensor([0]), torch.tensor([1]), penalty)
        assert (weight.item(), offset.item()) == (0, 2)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_without_features_that_are_affine_in_the_others_gives_the_same(bias):
    generator = torch.Generator().manual_seed(0)
    told = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    copies = told @ torch.randn(5, 3, generator=generator, dtype=torch.float64) + torch.tensor([1.0, -2.0, 7.0])
    rows = torch.cat([copies[:, :2], told, copies[:, 2:]], 1)
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    start = torch.randn(4, generator=generator, dtype=torch.float64) if bias else None
    kept = torch.arange(2, 7)
    assert others(kept, 8).tolist() == [0, 1, 7]
    new, offset = fold(weight, start, in_batches(rows.numpy(), 3), kept, 0.0)
    torch.testing.assert_close(
        rows[:, kept] @ new.T + offset, rows @ weight.T + (start if bias else 0), rtol=1e-10, atol=1e-10
    )


def error_without(rows: np.ndarray, weight: np.ndarray, gone: list[int]) -> float:
    """The mean squared error of a layer's outputs when the others stand in, by NumPy's least squares."""
    kept = [one for one in range(rows.shape[1]) if one not in gone]
    inputs = np.hstack([rows[:, kept], np.ones((len(rows), 1))])
    wanted = rows @ weight.T
    found = np.linalg.lstsq(inputs, wanted, rcond=None)[0]
    return float(((inputs @ found - wanted) ** 2).sum(1).mean())


@pytest.mark.parametrize("width", [1, 2])
def test_what_a_layer_misses_least_is_what_leaves_the_least_error_at_every_step(width):
    rows = rows_of(3, 100, 8)
    weight = np.random.default_rng(4).standard_normal((3, 8))
    groups = [list(range(start, start + width)) for start in range(0, 8, width)]
    taken: list[int] = []
    for _ in range(3):
        left = [number for number in range(len(groups)) if number not in taken]
        errors = [
            error_without(rows, weight, [one for number in (*taken, more) for one in groups[number]]) for more in left
        ]
        taken.append(left[int(np.argmin(errors))])
    found = find_dispensable(torch.from_numpy(weight), in_batches(rows, 2), 3, width, penalty=1e-10)
    assert [group for group, _ in found] == taken
    lost = error_without(rows, weight, [one for number in taken for one in groups[number]])
    assert sum(error for _, error in found) == pytest.approx(lost, rel=1e-4)


def test_a_layer_misses_copies_first_and_nothing_if_nothing_varies():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    seen = scatter(torch.cat([rows, rows[:, :1] + 2], 1))
    assert find_dispensable(torch.ones(2, 4), seen, 1)[0][0] in (0, 3)
    assert len(set(find_dispensable(torch.ones(2, 4), scatter(torch.ones(5, 4)), 3))) == 3
