"""Numerics against independent ways to the same number: numpy's FFT, scipy, and the definition written out."""

import numpy as np
import pytest
import scipy.stats
import torch

from vitscope.numerics.attention import (
    distinct_keys,
    entropy,
    keys_for_mass,
    mean_pairwise_cosine,
    query_diversity,
    row_entropy,
    sort_rows,
)
from vitscope.numerics.fourier import (
    diagonal_basis,
    diagonal_frequencies,
    fourier_transform,
    inverse_fourier_transform,
    relative_log_amplitude,
)
from vitscope.numerics.frequency_band import limit_to_band, square_band
from vitscope.numerics.moments import moments
from vitscope.numerics.tokens import participation_rank, spatial_variance, token_cosine


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("side", [4, 7, 8, 14])
def test_the_half_diagonal_is_that_of_the_whole_transform(side, generator):
    maps = torch.randn(3, 5, side, side, generator=generator, dtype=torch.float64)
    log_amplitude = np.log(np.abs(np.fft.fft2(maps.numpy())) + 1e-6).mean(1)
    diagonal = log_amplitude[:, np.arange(side), np.arange(side)][:, : side // 2 + 1]
    expected = diagonal - diagonal[:, :1]
    found = relative_log_amplitude(maps.flatten(2).transpose(1, 2), diagonal_basis(side, side))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_a_box_blur_lowers_the_spectrum_and_a_laplacian_raises_it(generator):
    maps = torch.randn(64, 1, 16, 16, generator=generator, dtype=torch.float64) + 1
    blur = torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9
    laplacian = torch.tensor([[0, -1, 0], [-1, 5.0, -1], [0, -1, 0]], dtype=torch.float64)[None, None]
    spectra = []
    for kernel in (blur, laplacian):
        padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="circular")
        filtered = torch.nn.functional.conv2d(padded, kernel)
        spectra.append(relative_log_amplitude(filtered.flatten(2).transpose(1, 2), diagonal_basis(16, 16)).mean(0))
    plain = relative_log_amplitude(maps.flatten(2).transpose(1, 2), diagonal_basis(16, 16)).mean(0)
    assert (spectra[0][2:] < plain[2:] - 0.3).all()
    assert (spectra[1][2:] > plain[2:] + 0.3).all()


def test_frequencies_reach_nyquist_on_even_sides_only():
    assert diagonal_frequencies(8, 12)[-1] == 1.0
    assert diagonal_frequencies(7, 7)[-1] == pytest.approx(6 / 7)


def test_entropy_of_softmax_rows_is_scipys(generator):
    scores = 5 * torch.randn(6, 20, generator=generator)
    weights = scores.softmax(-1)
    expected = scipy.stats.entropy(weights.double().numpy(), axis=-1)
    np.testing.assert_allclose(row_entropy(weights, scores, torch.empty(6, 20)), expected, rtol=1e-4)
    np.testing.assert_allclose(entropy(weights), expected, rtol=1e-4)


def test_entropy_survives_masked_scores():
    scores = torch.tensor([[0.0, 0.0, -1e30]])
    assert row_entropy(scores.softmax(-1), scores, torch.empty(1, 3)).item() == pytest.approx(np.log(2))


def test_query_diversity_is_the_mutual_information(generator):
    weights = torch.randn(9, 12, generator=generator, dtype=torch.float64).mul(3).softmax(-1)
    joint = weights.numpy() / 9
    expected = (joint * np.log(joint / (joint.sum(0) / 9)[None])).sum()
    found = query_diversity(weights.mean(0), entropy(weights).mean())
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_pairwise_cosine_is_the_mean_over_pairs(generator):
    vectors = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    expected = (cosines.sum() - 7) / 42
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    assert mean_pairwise_cosine(unit.sum(0), 7).item() == pytest.approx(expected.item(), rel=1e-9)
    assert token_cosine(vectors[None]).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("count", [0, 2])
def test_transforms_are_numpys_and_of_nothing_nothing(count, generator):
    values = torch.randn(count, 4, 6, 3, generator=generator, dtype=torch.float64)
    found = fourier_transform(values, (-3, -2))
    np.testing.assert_allclose(found.numpy(), np.fft.fftn(values.numpy(), axes=(1, 2)), atol=1e-12)
    assert found.dtype == torch.complex128
    torch.testing.assert_close(inverse_fourier_transform(found, (-3, -2)), values)
    assert limit_to_band(values, square_band(6, 3, 0.2, 0.9)).shape == values.shape


def test_one_vector_has_no_pair():
    assert mean_pairwise_cosine(torch.ones(3), 1).isnan()


@pytest.mark.parametrize("keys", [1, 2, 9, 30, 197])
def test_keys_for_mass_is_the_definition(keys, generator):
    weights = torch.randn(50, keys, generator=generator).mul(2).softmax(-1)
    falling = np.sort(weights.numpy(), axis=-1)[:, ::-1].cumsum(-1)
    expected = (falling < 0.9).sum(-1) + 1
    np.testing.assert_array_equal(keys_for_mass(sort_rows(weights), 0.9).numpy(), expected)


def test_distinct_keys_is_the_size_of_the_union(generator):
    weights = torch.randn(4, 6, 10, generator=generator).softmax(-1)
    top = weights.topk(3, -1)
    expected = [len(set(rows.flatten().tolist())) for rows in top.indices]
    assert distinct_keys(weights, top.values[..., -1]).tolist() == expected


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_participation_rank_comes_from_the_singular_values(shape, generator):
    cells = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    values = torch.linalg.svdvals(cells - cells.mean(1, keepdim=True)).square()
    expected = values.sum(1).square() / values.square().sum(1)
    torch.testing.assert_close(participation_rank(cells - cells.mean(1, keepdim=True)), expected)


def test_spatial_variance_is_numpys(generator):
    cells = torch.randn(2, 9, 4, generator=generator)
    np.testing.assert_allclose(
        spatial_variance(cells - cells.mean(1, keepdim=True)), cells.numpy().var(1, ddof=1).mean(-1), rtol=1e-5
    )


def test_moments_are_numpys(generator):
    samples = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    found = moments(samples)
    np.testing.assert_allclose(found.observed_mean, samples.numpy().mean(0))
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(samples.numpy(), axis=0))
