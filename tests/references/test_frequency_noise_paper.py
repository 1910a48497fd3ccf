"""Frequency noise against the procedure of Park and Kim (ICLR 2022, figure 2b), written out step by step."""

import math

import numpy as np
import pytest
import torch

from vitscope.interventions.frequency_noise import AddedNoise, FrequencyNoise, signs
from vitscope.interventions.studies.frequency_noise import PAPER
from vitscope.numerics.frequency_band import energy_share, ring_band, square_band

PAPERS_WIDTH = 0.2


def paper_mask(side: int, centre: float, half_width: float) -> np.ndarray:
    """Ones in a centred square, less those in a smaller one, zero frequency at ``side // 2``; even sides."""
    masks = []
    for frequency in (centre + half_width, centre - half_width):
        cells = 2 * int(frequency * side / (2 * math.pi))
        cells = min(max(cells, 0), side)
        border = (side - cells) // 2
        mask = np.zeros((side, side))
        mask[border : border + cells, border : border + cells] = 1
        masks.append(mask)
    return masks[0] - masks[1]


def paper_noise(white: np.ndarray, frequency: float) -> np.ndarray:
    side = white.shape[-1]
    shifted = np.fft.fftshift(np.fft.fft2(white), axes=(-2, -1))
    amplitude, phase = np.abs(shifted) * paper_mask(side, frequency * math.pi, PAPERS_WIDTH), np.angle(shifted)
    return np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(-2, -1))).real


@pytest.mark.parametrize("side", [8, 14, 32, 96, 224])
@pytest.mark.parametrize("frequency", [*PAPER["frequency"], 0.0, 1.0])
def test_the_square_band_is_the_papers_mask(side, frequency):
    ours = square_band(side, side, frequency * math.pi, PAPERS_WIDTH)
    assert np.array_equal(np.fft.fftshift(ours.numpy()), paper_mask(side, frequency * math.pi, PAPERS_WIDTH) == 1)


@pytest.mark.parametrize(("side", "frequency"), [(32, 0.1), (32, 0.5), (32, 0.9), (56, 0.3), (56, 1.0)])
def test_the_noise_is_the_papers_for_the_same_signs(side, frequency):
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = AddedNoise(FrequencyNoise(frequency, 0.7), (1.0,))(images)
    expected = paper_noise(0.7 * signs(images, 0).numpy(), frequency)
    np.testing.assert_allclose((noisy - images).numpy(), expected, rtol=0, atol=1e-12)


def test_the_papers_bands_differ_ninefold_in_cells_at_224():
    shares = [
        square_band(224, 224, frequency * math.pi, PAPERS_WIDTH).double().mean().item()
        for frequency in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    assert [round(share, 3) for share in shares] == [0.025, 0.074, 0.133, 0.174, 0.223]
    assert shares[-1] / shares[0] == pytest.approx(9.09, abs=0.01)


def test_taking_the_real_part_leaves_a_little_less_energy_than_cells():
    """The square has the index -m but not +m, so its outer rows lose half; a ring is symmetric and loses nothing."""
    square, ring = (band(224, 224, 0.1 * math.pi, PAPERS_WIDTH) for band in (square_band, ring_band))
    inner = 8**2 + 8**2 - 7**2  # cells of -4..3 squared or of its negative, 3..-4 squared
    pairs = (36 - 1) ** 2 - inner  # cells that the band holds together with their negatives
    single = int(square.sum()) - pairs
    assert energy_share(square) == pytest.approx((pairs + single / 2) / 224**2)
    assert energy_share(ring) == ring.double().mean().item()


def test_the_digitised_curves_have_a_value_for_every_band():
    assert {len(values) for values in PAPER.values()} == {9}
    assert min(zip(PAPER["ViT"], PAPER["frequency"], strict=True)) == (-14.9, 0.3)
    assert min(zip(PAPER["ResNet"], PAPER["frequency"], strict=True)) == (-15.4, 0.9)
