"""Frequency noise: where its energy is, how much it is, and that nothing but the image decides it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.study import study
from vitscope.interventions.frequency_noise import AddedNoise, FrequencyNoise, signs
from vitscope.interventions.studies.frequency_noise import FrequencyNoiseStudy
from vitscope.measurement.errors import UserError
from vitscope.models.edit import OnInput
from vitscope.models.subject import Subject, Unwatched
from vitscope.numerics.frequency_band import energy_share, limit_to_band, ring_band, square_band


def pixels(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def added(images: torch.Tensor, noise: FrequencyNoise) -> torch.Tensor:
    return AddedNoise(noise, (1.0,))(images) - images


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (12, 21), (9, 16)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("shape", ["square", "ring"])
def test_all_energy_is_in_the_band(size, channels, shape):
    frequency, width = 0.6, 0.5
    found = torch.fft.fft2(added(pixels(2, channels, *size), FrequencyNoise(frequency, 1.0, width, shape))).abs()
    rows, columns = (2 * math.pi * np.abs(np.fft.fftfreq(side)) for side in size)
    if shape == "ring":
        modulus = np.hypot(rows[:, None], columns[None])
        inside = (modulus >= 0.6 * math.pi - width) & (modulus <= 0.6 * math.pi + width)
    else:  # on each axis an index is within a square up to the floor of its reach
        low, high = (
            (np.abs(np.fft.fftfreq(size[0], 1 / size[0]))[:, None] <= reach[0])
            & (np.abs(np.fft.fftfreq(size[1], 1 / size[1]))[None] <= reach[1])
            for reach in (
                [math.floor((0.6 * math.pi - width) * side / (2 * math.pi)) - 1 for side in size],
                [math.floor((0.6 * math.pi + width) * side / (2 * math.pi)) for side in size],
            )
        )
        inside = high & ~low
    assert found[..., torch.from_numpy(~inside)].max() < 1e-9
    assert found[..., torch.from_numpy(inside)].max() > 1


def test_the_band_of_all_frequencies_adds_plus_or_minus_the_strength():
    noise = added(pixels(2, 3, 9, 8), FrequencyNoise(0.5, 0.25, width=8.0))
    torch.testing.assert_close(noise.abs(), torch.full_like(noise, 0.25))
    assert 0.3 < (noise > 0).double().mean() < 0.7


def test_square_bands_side_by_side_add_up_to_the_whole():
    """Centres 1/8, 3/8, 5/8, 7/8 pi, each pi/8 wide to either side, all cut from the same signs."""
    images = pixels(2, 3, 32, 32)
    parts = sum(added(images, FrequencyNoise(centre / 8, 1.0, width=math.pi / 8)) for centre in (1.0, 3.0, 5.0, 7.0))
    torch.testing.assert_close(parts, signs(images, 0))


def test_square_and_ring_by_hand_on_four_by_four():
    """The outer square of 0.6 pi + 1 radians holds -1 and 0 on each axis, the inner one of 0.6 pi - 1 none."""
    square = square_band(4, 4, 0.6 * math.pi, 1.0).int().tolist()
    assert square == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    ring = ring_band(4, 4, 0.6 * math.pi, 0.5).int().tolist()  # moduli 0, 1/2, 0.71, 1, ... pi; 0.44 to 0.76 pi
    assert ring == [[0, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 20), st.integers(3, 20), st.floats(0, math.pi), st.floats(0.05, 2), st.booleans())
def test_the_real_transform_equals_the_real_part_of_the_complex_one(height, width, centre, half_width, ring):
    band = (ring_band if ring else square_band)(height, width, centre, half_width)
    images = pixels(1, 2, height, width)
    expected = torch.fft.ifft2(torch.fft.fft2(images) * band).real
    torch.testing.assert_close(limit_to_band(images, band), expected, rtol=0, atol=1e-12)
    assert energy_share(band) <= band.double().mean() + 1e-12
    if ring:
        assert torch.equal(band, band.flip((0, 1)).roll((1, 1), (0, 1)))


@pytest.mark.parametrize("frequency", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", ["square", "ring"])
def test_equal_energy_is_the_strength_on_every_image(frequency, shape):
    noise = added(pixels(3, 3, 33, 30), FrequencyNoise(frequency, 0.2, shape=shape, energy="equal"))
    torch.testing.assert_close(noise.square().mean((1, 2, 3)).sqrt(), torch.full((3,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("frequency", [0.2, 0.9])
def test_the_papers_energy_is_as_foretold(frequency):
    """Over 48 x 3072 signs; the relative deviation of the mean is below 1 % for some 700 or more free cells."""
    noise = FrequencyNoise(frequency, 0.7, width=0.3)
    seen = added(pixels(48, 3, 32, 32), noise).square().mean().sqrt().item()
    assert seen == pytest.approx(noise.rms(32, 32), rel=0.03)


def test_batches_order_type_and_random_states_do_not_matter():
    images = pixels(5, 3, 16, 16, dtype=torch.float32)
    noise = AddedNoise(FrequencyNoise(0.4, seed=2), (1.0,))
    states = np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    whole = noise(images)
    np.testing.assert_equal(np.random.get_state(legacy=False), states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    torch.testing.assert_close(torch.cat([noise(image[None]) for image in images]), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(noise(images.flip(0)).flip(0), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(noise(images.double()).float(), whole, rtol=0, atol=1e-5)
    assert noise(images.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(noise(images[:0]), images[:0])


def test_signs_are_fair_and_other_for_other_images_seeds_and_channels():
    images = pixels(2, 2, 64, 64)
    found = torch.cat([signs(images, 0), signs(images, 1)]).flatten(0, 1).flatten(1)
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    correlation = found @ found.T / found.shape[1]
    assert (correlation - torch.eye(8, dtype=torch.float64)).abs().max() < 5 / 64  # five deviations of 1 / 64
    assert found.mean(1).abs().max() < 5 / 64
    copies = signs(images[[0, 0]], 0)
    assert torch.equal(copies[0], copies[1])


def test_the_first_signs_never_change():
    """They decide what every stored result holds."""
    assert signs(torch.zeros(1, 1, 2, 8), 0).flatten().int().tolist() == [
        1, 1, -1, 1, 1, -1, 1, 1, 1, 1, 1, 1, 1, -1, 1, 1,
    ]  # fmt: skip


class Flat(nn.Module):
    """Nobody described it; its logits are the pixels."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity()))

    def forward(self, images):
        return self.blocks(images).flatten(1)


@pytest.fixture
def flat() -> Subject:
    pixel_input = vitscope.PixelInput(image=8, channels=3, mean=(0.5,), std=(0.25, 0.5, 1.0))
    module = Flat()
    nn.init.dirac_(module.blocks[0][0].weight)
    nn.init.zeros_(module.blocks[0][0].bias)
    return vitscope.load(module, input=pixel_input)


def logits(subject: Subject, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return subject.anatomy.walk(images, Unwatched()).view(images.shape)


def test_strength_in_pixels_is_divided_by_the_deviation_of_the_input(flat):
    images = pixels(2, 3, 8, 8, dtype=torch.float32)
    inside = FrequencyNoise(0.5, 0.1, width=1.0)
    in_input = logits(inside(flat), images) - images
    in_pixels = logits(replace(inside, units="pixels")(flat), images) - images
    torch.testing.assert_close(in_pixels, in_input * torch.tensor([4.0, 2.0, 1.0]).view(3, 1, 1), atol=1e-5, rtol=0)
    assert in_input.abs().max() > 0.05


def test_one_value_of_an_own_input_stands_for_every_channel(flat):
    assert (flat.preprocessing.mean, flat.preprocessing.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))


def test_an_unknown_normalisation_is_refused_only_for_pixels(flat):
    unknown = replace(flat, preprocessing=replace(flat.preprocessing, mean=None, std=None))
    FrequencyNoise(0.5, 0.1, width=1.0)(unknown)
    with pytest.raises(UserError, match="normalisation of Flat's input is not known"):
        FrequencyNoise(0.5, 0.1, width=1.0, units="pixels")(unknown)


def test_edits_are_equal_by_value(flat):
    one, same, other = (FrequencyNoise(0.5, strength, width=1.0)(flat) for strength in (0.1, 0.1, 0.2))
    assert one.edits == same.edits == (OnInput(AddedNoise(FrequencyNoise(0.5, 0.1, width=1.0), (1.0,))),)
    assert one.edits != other.edits
    assert hash(one.edits) == hash(same.edits)
    assert one.module is flat.module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FrequencyNoise(1.5), "frequency is 1.5"),
        (lambda: FrequencyNoise(-0.1), "frequency is -0.1"),
        (lambda: FrequencyNoise(0.5, -1.0), "strength is -1"),
        (lambda: FrequencyNoise(0.5, math.inf), "strength is inf"),
        (lambda: FrequencyNoise(0.5, width=0.0), "half-width is 0"),
        (lambda: FrequencyNoise(0.5, width=math.nan), "half-width is nan"),
        (lambda: FrequencyNoise(0.5, seed=-1), "seed is -1"),
        (lambda: FrequencyNoise(0.1).band(8, 8), "8 x 8 have no frequency within 0.2 radians of 0.1 pi.*0.48\\."),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize("side", [7, 8, 33])
@pytest.mark.parametrize("shape", ["square", "ring"])
def test_the_advised_width_is_wide_enough(side, shape):
    for frequency in (0.0, 0.1, 0.25, 0.5, 0.77, 1.0):
        narrow = FrequencyNoise(frequency, width=1e-9, shape=shape)
        try:
            narrow.band(side, side)
        except UserError as error:
            advised = float(str(error).rsplit(" ", 1)[1].rstrip("."))
            assert replace(narrow, width=advised).band(side, side).any()


def test_the_study_has_a_band_a_point_and_says_how_strong_each_is():
    subject, images = vitscope.load("digits"), vitscope.images("digits", limit=48)
    asked = FrequencyNoiseStudy(bands="0.2:0.8:3", width=0.6, strength=3.0, units="pixels")
    run = study(subject, images, asked)
    change = run["frequency-noise-accuracy/nll_change"]
    assert change.dims == ("frequency_band",)
    assert change["frequency_band"].values.tolist() == [0.2, 0.5, 0.8]
    rms = [FrequencyNoise(band, 3.0, 0.6).rms(8, 8) for band in (0.2, 0.5, 0.8)]
    assert change["frequency_band_rms"].values.tolist() == rms
    assert (change.values > 0.05).all()
    alone = vitscope.measure(FrequencyNoise(0.5, 3.0, 0.6, units="pixels")(subject), images, [Accuracy()])
    found = run["frequency-noise-accuracy/nll"].sel(frequency_band=0.5).item()
    assert found == pytest.approx(alone["accuracy/nll"].item(), rel=1e-6)
    assert "0.7" not in run.notes[0]
    assert f"{min(rms):.3g} to {max(rms):.3g} of the range from black to white" in run.notes[0]


def test_the_study_takes_the_strength_that_fits_its_energy():
    assert {noise.strength for noise in FrequencyNoiseStudy().noises()} == {0.7}
    assert {noise.strength for noise in FrequencyNoiseStudy(energy="equal").noises()} == {0.25}
    assert {noise.strength for noise in FrequencyNoiseStudy(strength=0.0).noises()} == {0.0}
    assert [noise.frequency for noise in FrequencyNoiseStudy().noises()] == [k / 10 for k in range(1, 10)]


def test_the_study_refuses_bands_that_small_images_do_not_have():
    with pytest.raises(UserError, match="8 x 8 have no frequency"):
        study(vitscope.load("digits"), vitscope.images("digits", limit=8), FrequencyNoiseStudy())


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("timm/deit_tiny_patch16_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("torchvision/resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("digits", None, None),
    ],
)
def test_subjects_know_their_normalisation(name, mean, std):
    """And it is the one that their transform does, on a grey picture."""
    preprocessing = vitscope.load(name).preprocessing
    assert preprocessing.mean == (mean or preprocessing.mean)
    assert preprocessing.std == (std or preprocessing.std)
    grey = preprocessing.transform(Image.new("RGB", (300, 300), (51, 51, 51)))
    for channel, mean, std in zip(grey, preprocessing.mean, preprocessing.std, strict=True):
        torch.testing.assert_close(channel, torch.full_like(channel, (0.2 - mean) / std), atol=1e-5, rtol=0)


def test_processors_of_transformers_show_their_normalisation():
    transformers = pytest.importorskip("transformers")
    from vitscope.models.transformers.input import ProcessorTransform, _normalisation

    plain = transformers.ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])
    assert _normalisation(ProcessorTransform(plain), "RGB") == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    off = transformers.ViTImageProcessor(do_normalize=False)
    assert _normalisation(ProcessorTransform(off), "RGB") == ((0.0,) * 3, (1.0,) * 3)
