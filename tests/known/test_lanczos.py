"""Lanczos' method and its quadrature on matrices whose eigenvalues are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.numerics.lanczos import Chains, Krylov, extreme_eigenpairs, norm
from vitscope.numerics.spectral_density import kernel_density, lanczos_quadrature


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetric(size: int, seed: int = 0) -> torch.Tensor:
    matrix = torch.randn(size, size, generator=generator(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def rotated(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A dense matrix with these eigenvalues."""
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed), dtype=torch.float64)).Q
    return basis @ torch.diag(values.double()) @ basis.T


def extremes(matrix, top=5, seed=1, **settings):
    start = torch.randn(len(matrix), generator=generator(seed), dtype=torch.float64).to(matrix)
    return extreme_eigenpairs(lambda vector: matrix @ vector, start, generator(2), top, **settings)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 40), top=st.integers(1, 6), rows=st.sampled_from([None, 8, 20]), seed=st.integers(0, 99))
def test_both_ends_are_those_of_a_dense_solver(size, top, rows, seed):
    matrix = symmetric(size, seed)
    values = torch.linalg.eigvalsh(matrix)
    found = extremes(matrix, top, tolerance=1e-9, steps=400, rows=rows)
    count = min(top, size)
    torch.testing.assert_close(found.largest.values, values.flip(0)[:count], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.smallest.values, values[:count], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rows", [None, 24])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 3e-5), (torch.float64, 1e-9)])
def test_a_restarted_space_finds_the_same_in_both_precisions(rows, dtype, close):
    matrix = symmetric(300)
    values = torch.linalg.eigvalsh(matrix)
    found = extremes(matrix.to(dtype), tolerance=1e-5, rows=rows)
    torch.testing.assert_close(found.largest.values, values.flip(0)[:5], rtol=0, atol=close + 1e-8)
    torch.testing.assert_close(found.smallest.values, values[:5], rtol=0, atol=close + 1e-8)
    assert rows is None or found.products > rows + 10


def test_the_residuals_are_those_of_the_vectors_that_are_returned():
    matrix = symmetric(120)
    found = extremes(matrix, tolerance=1e-3)
    for pairs in (found.largest, found.smallest):
        torch.testing.assert_close(pairs.vectors.norm(dim=1), torch.ones(5).double())
        residuals = (pairs.vectors @ matrix - pairs.values[:, None] * pairs.vectors).norm(dim=1)
        torch.testing.assert_close(pairs.residuals, residuals, rtol=1e-6, atol=1e-12)
        assert float(residuals.max()) <= 1e-3 * found.norm
        distance = (pairs.values[:, None] - torch.linalg.eigvalsh(matrix)).abs().amin(1)
        assert bool((distance <= residuals + 1e-12).all())
    assert max(float(found.largest.residuals.max()), float(found.smallest.residuals.max())) > 1e-6 * found.norm


def test_it_stops_as_soon_as_the_wanted_pairs_have_converged():
    matrix = symmetric(200)
    counted = [extremes(matrix, tolerance=tolerance).products for tolerance in (1e-2, 1e-4, 1e-8)]
    assert counted[0] < counted[1] < counted[2] < 200
    assert extremes(matrix, ends="largest").products < extremes(matrix).products


def test_too_few_steps_leave_residuals_above_the_tolerance():
    found = extremes(symmetric(300), tolerance=1e-6, steps=25)
    assert float(found.largest.residuals.max()) > 1e-6 * found.norm
    assert found.products == 25 + 10


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_one_end_alone(end):
    matrix = symmetric(60)
    values = torch.linalg.eigvalsh(matrix)
    found = extremes(matrix, 3, ends=end, tolerance=1e-8)
    truth = {"largest": values.flip(0)[:3], "smallest": values[:3]}
    torch.testing.assert_close(getattr(found, end).values, truth[end], rtol=0, atol=1e-8)
    assert len({"largest": found.smallest, "smallest": found.largest}[end].values) == 0


def test_a_space_that_is_exhausted_goes_on_elsewhere():
    matrix = torch.diag(torch.tensor([4.0, 3, 2, -1, -5]).double())
    start = torch.tensor([1.0, 0, 0, 0, 0]).double()
    found = extreme_eigenpairs(lambda vector: matrix @ vector, start, generator(), 2)
    torch.testing.assert_close(found.largest.values, torch.tensor([4.0, 3]).double())
    torch.testing.assert_close(found.smallest.values, torch.tensor([-5.0, -1]).double())


def test_nothing_but_zeros():
    found = extremes(torch.zeros(30, 30).double())
    assert float(found.largest.values.abs().max()) == found.norm == 0


def test_no_ghost_copies_after_200_steps():
    """Peers: curvlinops' ``fast_lanczos`` and hessian-eigenthings above 50 steps do not re-orthogonalise."""
    values = torch.cat([torch.tensor([100.0, 60, 30, -40]), torch.linspace(-1, 1, 496)])
    matrix = rotated(values).float()
    krylov = Krylov(lambda vector: matrix @ vector, torch.randn(500, generator=generator()), 200, generator())
    for _ in range(200):
        krylov.extend()
    found = krylov.ritz()[0]
    torch.testing.assert_close(found.flip(0)[:3], values[:3].double(), rtol=1e-5, atol=1e-5)
    assert int((found > 1.1).sum()) == 3
    assert int((found < -1.1).sum()) == 1
    gram = krylov.basis[:200] @ krylov.basis[:200].T
    torch.testing.assert_close(gram, torch.eye(200), rtol=0, atol=1e-5)
    assert int((plain_ritz_values(matrix, 200) > 99).sum()) > 1  # what they do: the same eigenvalue several times


def plain_ritz_values(matrix, steps):
    """Lanczos' three-term recurrence, nothing more."""
    vector = torch.randn(len(matrix), generator=generator()).to(matrix)
    vector, before, beta = vector / vector.norm(), torch.zeros_like(vector), 0.0
    alphas, betas = [], []
    for _ in range(steps):
        image = matrix @ vector - beta * before
        alphas.append(float(vector @ image))
        image = image - alphas[-1] * vector
        beta = float(image.norm())
        betas.append(beta)
        vector, before = image / beta, vector
    off = torch.tensor(betas[:-1])
    return torch.linalg.eigvalsh(torch.diag(torch.tensor(alphas)) + torch.diag(off, 1) + torch.diag(off, -1))


def test_norms_keep_their_digits_in_float32():
    vector = torch.randn(2_000_000, generator=generator())
    torch.testing.assert_close(norm(vector).double(), vector.double().norm(), rtol=1e-6, atol=0)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 40), steps=st.integers(1, 12), seed=st.integers(0, 99), kept=st.booleans())
def test_quadrature_has_the_moments_of_the_vectors_measure(size, steps, seed, kept):
    matrix, start = symmetric(size, seed) / size, torch.randn(size, generator=generator(seed + 1), dtype=torch.float64)
    nodes, weights = lanczos_quadrature(lambda vector: matrix @ vector, start, steps, generator(), steps if kept else 1)
    assert len(nodes) == len(weights) == steps
    power, moments = start.clone(), []
    for _ in range(2 * steps):
        moments.append(float(start @ power / (start @ start)))
        power = matrix @ power
    for degree, moment in enumerate(moments):
        assert float((weights * nodes**degree).sum()) == pytest.approx(moment, rel=1e-8, abs=1e-10)


def test_ghosts_share_the_weight_of_what_they_copy():
    values = torch.cat([torch.tensor([100.0, 60, -40]), torch.linspace(-1, 1, 497)])
    matrix, start = rotated(values).float(), torch.randn(500, generator=generator())
    pairs = [lanczos_quadrature(lambda v: matrix @ v, start, 120, generator(), rows) for rows in (120, 1)]
    masses = [float(weights[nodes > 99].sum()) for nodes, weights in pairs]
    assert masses[0] == pytest.approx(masses[1], rel=1e-3)
    assert [int((nodes > 99).sum()) for nodes, _ in pairs][1] > 1


def test_kernel_density_integrates_to_one_and_keeps_the_moments():
    nodes, weights = torch.tensor([-3.0, 0.0, 5.0]).double(), torch.tensor([0.25, 0.625, 0.125]).double()
    points = torch.linspace(-10, 12, 4001, dtype=torch.float64)
    density = kernel_density(nodes, weights, points, 0.5)
    assert float(torch.trapezoid(density, points)) == pytest.approx(1, abs=1e-9)
    assert float(torch.trapezoid(density * points, points)) == pytest.approx(float(nodes @ weights), abs=1e-9)
    second = float(torch.trapezoid(density * points**2, points))
    assert second == pytest.approx(float(nodes**2 @ weights) + 0.25, abs=1e-9)


def test_chains_are_spaces_of_their_own_grown_in_step():
    matrix = rotated(torch.linspace(0, 1, 60) ** 3)
    start = torch.randn(3, 60, generator=generator(), dtype=torch.float64)
    chains = Chains(lambda rows: rows @ matrix, start)
    alone = [Krylov(lambda vector: matrix @ vector, each, 20, generator()) for each in start]
    for _ in range(20):
        chains.extend()
        for krylov in alone:
            krylov.extend()
        assert chains.largest() == pytest.approx(max(float(krylov.ritz()[0][-1]) for krylov in alone), rel=1e-12)


def test_a_chain_whose_space_is_exhausted_leaves_the_others_alone():
    values = torch.tensor([3.0, 2.0, *[0.0] * 10])
    matrix = rotated(values)
    vectors = torch.linalg.eigh(matrix)[1]
    start = torch.stack([vectors[:, -2], vectors.sum(1), vectors[:, 0]])
    chains = Chains(lambda rows: rows @ matrix, start)
    found = []
    for _ in range(12):
        chains.extend()
        found.append(chains.largest())
    assert 2.0 <= found[0] < 3.0
    assert found[2:] == pytest.approx([3.0] * 10, rel=1e-12)
