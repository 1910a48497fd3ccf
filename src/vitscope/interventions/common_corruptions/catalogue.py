"""The common corruptions by name."""

from collections.abc import Mapping

import numpy as np

from vitscope.interventions.common_corruptions import blur, digital, noise, weather
from vitscope.interventions.common_corruptions.picture import CorruptionFunction, Picture
from vitscope.interventions.common_corruptions.severity import Scale, parameters, scale_for

FUNCTIONS: Mapping[str, CorruptionFunction] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
"""The fifteen kinds in the order of the paper: noise, blur, weather, digital."""


def corrupt(
    picture: Picture, kind: str, severity: int, generator: np.random.Generator, scale: Scale = "auto"
) -> Picture:
    """The picture under a kind of corruption at a level from 1 to 5, rounded down to bytes as the published sets are.

    ``scale`` names the published set whose parameters are used; auto takes the one of the nearest image size.
    """
    chosen = scale_for(min(picture.shape[:2])) if scale == "auto" else scale
    levels = FUNCTIONS[kind](picture, parameters(kind, severity, chosen), generator)
    return np.clip(levels, 0, 255).astype(np.uint8)
