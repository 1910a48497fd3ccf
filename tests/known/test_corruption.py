"""Common corruptions: each kind by hand, and that nothing but the picture decides what becomes of it."""

import io
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.study import study
from vitscope.interventions.common_corruptions import blur, digital, noise, weather
from vitscope.interventions.common_corruptions.catalogue import FUNCTIONS, corrupt
from vitscope.interventions.common_corruptions.severity import KINDS, parameters, scale_for
from vitscope.interventions.corruption import CorruptedPictures, Corruption, Kind
from vitscope.interventions.studies.corruption import CorruptionStudy
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject, Unwatched

SCALES = ("cifar", "tiny-imagenet", "imagenet")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth, with an edge."""
    rows, columns = np.indices((height, width))
    waves = [128 + 70 * np.sin(rows / (3 + c)) * np.cos(columns / 4) + 40 * (columns > rows) for c in range(channels)]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def flat(value: int, side: int = 32, channels: int = 3) -> np.ndarray:
    return np.full((side, side, channels), value, np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (33, 47, 1), (64, 50, 3)])
def test_every_kind_keeps_size_and_bytes_at_every_level_of_every_scale(kind, shape):
    image = picture(*shape)
    before = image.copy()
    for scale in SCALES:
        for severity in range(1, 6):
            found = corrupt(image, kind, severity, rng(), scale)
            assert found.shape == shape
            assert found.dtype == np.uint8
    assert np.array_equal(image, before)
    assert not np.array_equal(corrupt(image, kind, 5, rng(), "imagenet"), image)
    assert np.array_equal(corrupt(image, kind, 5, rng()), corrupt(image, kind, 5, rng()))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "kind",
    [
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "pixelate",
    ],
)
def test_a_higher_level_changes_more(kind, scale):
    image = picture(96, 96)
    changes = [
        np.abs(corrupt(image, kind, severity, rng(), scale).astype(float) - image).mean() for severity in range(1, 6)
    ]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


def test_published_parameters():
    """A few of each table, as in the programs that made the data sets."""
    assert parameters("gaussian_noise", 5, "cifar") == (0.10,)
    assert parameters("gaussian_noise", 5, "imagenet") == (0.38,)
    assert parameters("motion_blur", 4, "tiny-imagenet") == (10, 2.5)
    assert parameters("fog", 3, "imagenet") == (2.5, 1.7)
    assert parameters("jpeg_compression", 1, "cifar") == (80,)
    assert parameters("elastic_transform", 4, "imagenet") == pytest.approx((244 * 0.07 / 224, 2.44 / 224, 4.88 / 224))
    assert [scale_for(side) for side in (8, 32, 45, 46, 64, 96, 119, 120, 224, 384)] == [
        "cifar", "cifar", "cifar", *["tiny-imagenet"] * 4, *["imagenet"] * 3,
    ]  # fmt: skip
    assert tuple(FUNCTIONS) == KINDS == get_args(Kind)
    assert len(KINDS) == 15


def test_gaussian_noise_has_its_deviation_in_every_channel():
    found = noise.gaussian_noise(flat(128, 128), (0.1,), rng()) - 128.0
    np.testing.assert_allclose(found.std((0, 1)), 25.5, rtol=0.03)
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1)


def test_shot_noise_counts_photons():
    """Of mean 60 x 102 / 255 = 24: the variance in levels is 102 x 255 / 60."""
    found = noise.shot_noise(flat(102, 128), (60,), rng())
    np.testing.assert_allclose(found.mean(), 102, rtol=0.01)
    np.testing.assert_allclose(found.var(), 102 * 255 / 60, rtol=0.05)
    np.testing.assert_allclose(found / 255 * 60, np.round(found / 255 * 60), atol=1e-9)


def test_impulse_noise_hits_its_share_half_black_half_white():
    found = noise.impulse_noise(flat(100, 128), (0.2,), rng())
    assert set(np.unique(found)) == {0, 100, 255}
    assert (found == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (found == 255).mean() == pytest.approx(0.1, abs=0.01)
    assert (found[..., 0] != found[..., 1]).any()


def test_defocus_is_the_mean_over_a_disc():
    image = flat(0, 41)
    image[20, 20] = 255
    found = blur.defocus_blur(image, (3, 0.1), rng())[..., 0]
    rows, columns = np.indices((41, 41)) - 20
    disc = rows**2 + columns**2 <= 9
    np.testing.assert_allclose(found[disc], 255 / disc.sum(), rtol=1e-6)
    np.testing.assert_allclose(found[~disc], 0, atol=1e-9)
    softened = blur.softened_disc(0.3, 0.5)[7:10, 7:10]  # one cell, blurred by taps e^-2, 1, e^-2
    taps = np.array([math.exp(-2), 1, math.exp(-2)]) / (1 + 2 * math.exp(-2))
    np.testing.assert_allclose(softened, np.outer(taps, taps))


def test_blurs_leave_a_flat_picture():
    for kind in ("glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate", "contrast"):
        for severity in (1, 5):
            found = corrupt(flat(90, 48), kind, severity, rng(), "imagenet").astype(int)
            assert np.abs(found - 90).max() <= 1, kind
    assert np.abs(corrupt(flat(90, 48), "defocus_blur", 5, rng(), "imagenet").astype(int) - 90).max() <= 2


def test_motion_is_half_a_gaussian_along_its_line():
    levels = np.zeros((9, 9, 1))
    levels[4, 6] = 1.0
    weights = np.exp(-(np.arange(5) ** 2) / 8) / np.exp(-(np.arange(5) ** 2) / 8).sum()
    along = blur.along_line(levels, 2, 2, 0)[..., 0]  # each pixel reads those to its right
    np.testing.assert_allclose(along[4, 2:7], weights[::-1])
    assert np.count_nonzero(along) == 5
    down = blur.along_line(levels, 2, 2, 90)[..., 0]
    np.testing.assert_allclose(down[0:5, 6], weights[::-1])
    slanted = blur.along_line(levels, 2, 2, 45)[..., 0]
    expected = [weights[0], weights[1] + weights[2], weights[3], weights[4]]  # steps 0, 0.7, 1.4, 2.1, 2.8, rounded
    np.testing.assert_allclose([slanted[4 - step, 6 - step] for step in range(4)], expected)


def test_glass_takes_colours_from_within_reach():
    """With no blur to speak of: every colour comes from a pixel that is at most one step further up or left, or on."""
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    image = np.stack([image // 2, image % 2, image * 0], -1).astype(np.uint8)
    found = np.round(blur.glass_blur(image, (0.05, 1, 1), rng())).astype(int)
    rows, columns = np.divmod(found[..., 0] * 2 + found[..., 1], 20)
    moved = np.stack([rows, columns], -1) - np.stack(np.indices((20, 20)), -1)
    inner = moved[2:20, 2:20]
    assert set(np.unique(inner)) == {-1, 0}
    assert set(map(tuple, inner.reshape(-1, 2))) == {(0, 0), (-1, 0), (0, -1), (-1, -1)}
    assert not moved[:2].any()
    assert not moved[:, :2].any()


def test_zoom_is_the_mean_of_magnified_centres():
    image = picture(16, 24, 1)
    halved = blur.magnify(image.astype(float), 2)
    np.testing.assert_allclose(halved, ndimage.zoom(image[4:12, 6:18].astype(float), (2, 2, 1), order=1))
    found = blur.zoom_blur(image, (2.5, 1.0), rng())  # factors 1 and 2, and the picture itself
    np.testing.assert_allclose(found, (2.0 * image + halved) / 3)


def test_brightness_raises_the_value_and_keeps_hue_and_saturation():
    image = np.array([[[200, 100, 50], [0, 0, 0], [255, 0, 0]]], np.uint8)
    found = digital.brightness(image, (0.2,), rng())
    np.testing.assert_allclose(found[0, 0], np.array([1, 0.5, 0.25]) * 251)
    np.testing.assert_allclose(found[0, 1], 51)
    np.testing.assert_allclose(found[0, 2], [255, 0, 0], atol=1e-9)


def test_contrast_shrinks_to_the_channels_mean():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = (100, 200, 40)
    found = digital.contrast(image, (0.5,), rng())
    np.testing.assert_allclose(found[0, 0], [75, 150, 30])
    np.testing.assert_allclose(found[1, 1], [25, 50, 10])


def test_pixelate_takes_means_of_blocks():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    found = digital.pixelate(image, (0.5,), rng())[..., 0]
    np.testing.assert_allclose(found, np.kron([[25, 45], [105, 125]], np.ones((2, 2))))


def test_jpeg_is_pillows_at_that_quality():
    image, content = picture(), io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=7)
    assert np.array_equal(digital.jpeg_compression(image, (7,), rng()), np.asarray(Image.open(content)))


def test_elastic_without_amplitude_is_the_picture_and_shifts_stay_small():
    image = picture(40, 40)
    np.testing.assert_allclose(digital.elastic_transform(image, (0, 0, 0), rng()), image, atol=1e-9)
    ramp = np.repeat(np.arange(40, dtype=np.uint8)[None, :, None] * 6, 40, axis=0)
    moved = (digital.elastic_transform(ramp, (0, 0, 0.05), rng()) - ramp)[10:30, 10:30] / 6
    assert 0.1 < np.abs(moved).max() < 5  # the three points move by up to 2 pixels; between them it is affine
    np.testing.assert_allclose(np.diff(moved[..., 0], 2, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(moved[..., 0], 2, axis=1), 0, atol=1e-6)


def test_the_affine_map_takes_the_three_points_where_they_were_told_to_go():
    class Told(np.random.Generator):
        def uniform(self, low, high, shape):
            return np.array([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])  # all points 3 columns right, 1 row down

    image = picture(30, 30) / 255
    found = digital._affine(image, 3.0, Told(np.random.PCG64()))
    np.testing.assert_allclose(found[1:, 3:], image[:-1, :-3], atol=1e-9)


@pytest.mark.parametrize("deviation", [0, 0.4, 2, 30])
def test_smoothing_by_the_cosine_transform_is_the_gaussian_filter(deviation):
    field = rng().uniform(-1, 1, (40, 52))
    expected = ndimage.gaussian_filter(field, deviation, mode="reflect", truncate=3)
    np.testing.assert_allclose(digital.smooth(field, deviation), expected, atol=1e-12)


def test_plasma_by_hand_on_two_by_two():
    """Corner 0; centre, then the cells below and beside it, are means of four plus 100 times the draw."""

    class Told(np.random.Generator):
        draws = iter([np.array([[1.0]]), np.array([[2.0]]), np.array([[-1.0]])])

        def uniform(self, low, high, shape):
            assert (low, high, shape) == (-100, 100, (1, 1))
            return next(self.draws)

    heights = np.array([[0.0, 50 + 200], [50 - 100, 100.0]])  # 2 x 100 / 4 = 50 of the centre, twice its neighbour
    np.testing.assert_allclose(weather.plasma(2, 3, Told(np.random.PCG64())), (heights + 50) / 300)


def plasma_point_by_point(side: int, decay: float, generator: np.random.Generator) -> np.ndarray:
    heights, step, amplitude = np.zeros((side, side)), side, 100.0
    diagonal, straight = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
    while step > 1:
        half = step // 2
        for row, column, neighbours in ((half, half, diagonal), (0, half, straight), (half, 0, straight)):
            draws = generator.uniform(-amplitude, amplitude, (side // step, side // step))
            for (i, j), draw in np.ndenumerate(draws):
                y, x = i * step + row, j * step + column
                around = [heights[(y + half * a) % side, (x + half * b) % side] for a, b in neighbours]
                heights[y, x] = np.mean(around) + amplitude * draw
        step, amplitude = half, amplitude / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def test_plasma_is_the_mean_of_its_neighbours_on_a_torus():
    np.testing.assert_allclose(weather.plasma(16, 1.7, rng(4)), plasma_point_by_point(16, 1.7, rng(4)), atol=1e-12)


def test_plasma_is_smoother_for_a_larger_decay():
    rough, smooth = (weather.plasma(64, decay, rng()) for decay in (1.4, 3))
    assert (rough.min(), rough.max(), smooth.min(), smooth.max()) == (0, 1, 0, 1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()


def test_fog_keeps_black_black_and_white_below_white():
    assert not weather.fog(flat(0), (1.5, 2), rng()).any()
    found = weather.fog(flat(200), (1.5, 2), rng()) / 255  # v (v + 1.5 p) / (v + 1.5), p from 0 to 1
    value = 200 / 255
    assert found.min() == pytest.approx(value**2 / (value + 1.5), abs=0.01)
    assert found.max() == pytest.approx(value, abs=0.01)
    np.testing.assert_allclose(found[..., 0], found[..., 2])


def test_snow_whitens_and_lays_streaks_both_ways_up():
    image = picture()
    grey = image @ np.array([0.299, 0.587, 0.114])
    whitened = 0.8 * image + 0.2 * np.maximum(image, grey[..., None] * 1.5 + 127.5)
    no_spots = (-10, 0.1, 2, 0.5, 4, 2, 0.8)
    np.testing.assert_allclose(weather.snow(image, no_spots, rng()), whitened)
    spots = weather.snow(image, (0.1, 0.3, 2, 0.5, 4, 2, 0.8), rng()) - whitened
    assert spots.min() >= -1e-9
    assert spots.max() > 20
    np.testing.assert_allclose(spots, np.rot90(spots, 2), atol=1e-9)


def test_frost_is_the_picture_and_ice_at_their_weights():
    image = picture()
    np.testing.assert_allclose(weather.frost(image, (1, 0, 1), rng()), image)
    ice = weather.ice(32, 32, 1, rng())
    np.testing.assert_allclose(weather.frost(image, (0.6, 0.75, 1), rng()), 0.6 * image + 0.75 * 255 * ice)
    np.testing.assert_allclose(
        weather.frost(image[..., :1], (0.6, 0.75, 1), rng())[..., 0], 0.6 * image[..., 0] + 0.75 * 255 * ice.mean(2)
    )


def test_ice_has_the_brightness_and_deviation_it_says():
    layers = [weather.ice(96, 96, 1, rng(seed)) for seed in range(12)]
    means, deviations = [layer.mean() for layer in layers], [layer.mean(2).std() for layer in layers]
    assert 0.45 < min(means) < max(means) < 0.84
    assert 0.06 < min(deviations) < max(deviations) < 0.17
    assert max(means) - min(means) > 0.1


class Flat(nn.Module):
    """Nobody described it; its logits are the pixels."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Identity()))
        nn.init.dirac_(self.blocks[0][0].weight)
        nn.init.zeros_(self.blocks[0][0].bias)

    def forward(self, images):
        return self.blocks(images).flatten(1)


def subject(channels: int = 3) -> Subject:
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.25, 0.2, 0.5)[:channels]
    return vitscope.load(Flat(channels), input=vitscope.PixelInput(image=16, channels=channels, mean=mean, std=std))


def walked(subject: Subject, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return subject.anatomy.walk(images, Unwatched()).view(images.shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_corrupted_before_the_normalisation(channels):
    image = picture(16, 16, channels)
    intact = subject(channels)
    pictured = Image.fromarray(image if channels == 3 else image[..., 0])
    found = walked(Corruption("contrast", 5)(intact), intact.preprocessing.transform(pictured)[None])[0]
    after = corrupt(image, "contrast", 5, rng())
    expected = intact.preprocessing.transform(Image.fromarray(after if channels == 3 else after[..., 0]))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["shot_noise", "elastic_transform", "frost", "jpeg_compression"])
def test_batches_order_and_random_states_do_not_matter(kind):
    images = torch.stack([subject().preprocessing.transform(Image.fromarray(picture(16, 16) + k)) for k in range(4)])
    corrupt = CorruptedPictures(Corruption(kind, 3), (0.5, 0.4, 0.3), (0.25, 0.2, 0.5))
    states = np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    whole = corrupt(images)
    np.testing.assert_equal(np.random.get_state(legacy=False), states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.equal(torch.cat([corrupt(image[None]) for image in images]), whole)
    assert torch.equal(corrupt(images.flip(0)).flip(0), whole)
    assert torch.equal(corrupt(images.double()).float(), whole)
    assert torch.equal(corrupt(images[:0]), images[:0])


def test_the_seed_decides():
    images = subject().preprocessing.transform(Image.fromarray(picture(16, 16)))[None]
    first, other = (walked(Corruption("impulse_noise", 5, seed=seed)(subject()), images) for seed in (0, 1))
    assert not torch.equal(first, other)


def gridded(kinds: str = "all", severities: str = "1:5:5"):
    asked = CorruptionStudy(kinds=kinds, severities=severities)
    return asked.grid(subject(), vitscope.images("digits", limit=1), vitscope.Plan())


def test_other_pictures_get_other_noise():
    """Two flat pictures one level apart: with the same draws their noise would be the same."""
    levels = torch.stack([torch.full((1, 32, 32), value / 255) for value in (120, 121)])
    added = CorruptedPictures(Corruption("gaussian_noise", 3), (0.0,), (1.0,))(levels) - levels
    assert abs(np.corrcoef(added.flatten(1))[0, 1]) < 5 / 32
    copies = CorruptedPictures(Corruption("gaussian_noise", 3), (0.0,), (1.0,))(levels[[0, 0]])
    assert torch.equal(copies[0], copies[1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Corruption("impulse_noise", 0), "severity is 0"),
        (lambda: Corruption("impulse_noise", 6), "severity is 6"),
        (lambda: Corruption("impulse_noise", seed=-1), "seed is -1"),
        (lambda: gridded("fog,rain"), "no common corruption named 'rain'"),
        (lambda: gridded(severities="1:6:6"), "severity of 6"),
        (lambda: gridded(severities="1,2.5"), "severity of 2.5"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_unknown_normalisation_and_odd_channels_are_refused():
    known = subject()
    unknown = replace(known, preprocessing=replace(known.preprocessing, mean=None))
    with pytest.raises(UserError, match="normalisation of Flat's input is not known"):
        Corruption()(unknown)
    five = replace(known, preprocessing=replace(known.preprocessing, shape=(5, 16, 16)))
    with pytest.raises(UserError, match="takes 5 channels"):
        Corruption()(five)


def test_the_study_has_kinds_and_severities():
    digits, images = vitscope.load("digits"), vitscope.images("digits", limit=40)
    run = study(digits, images, CorruptionStudy(kinds="contrast, gaussian_noise", severities="1,5"))
    found = run["corruption-accuracy/nll"]
    assert found.dims == ("corruption", "severity")
    assert found["corruption"].values.tolist() == ["contrast", "gaussian_noise"]
    assert found["severity"].values.tolist() == [1, 5]
    alone = vitscope.measure(Corruption("gaussian_noise", 5)(digits), images, [Accuracy()])["accuracy/nll"].item()
    assert found.sel(corruption="gaussian_noise", severity=5).item() == pytest.approx(alone, rel=1e-6)
    assert "CIFAR-10-C" in run.notes[0]
    assert gridded().shape == (15, 5)
