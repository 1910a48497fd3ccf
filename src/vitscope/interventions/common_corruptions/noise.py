"""Corruptions by noise, independent for each pixel and channel."""

import numpy as np

from vitscope.interventions.common_corruptions.picture import Levels, Parameters, Picture


def gaussian_noise(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Low light: normal noise of a deviation given as a share of the range."""
    return picture + 255 * parameters[0] * generator.standard_normal(picture.shape)


def shot_noise(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """The counting of photons: Poisson noise where white is this many of them."""
    return generator.poisson(picture / 255 * parameters[0]) / parameters[0] * 255


def impulse_noise(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Bit errors: this share of the values becomes black or white with equal chances."""
    hit = generator.random(picture.shape) < parameters[0]
    return np.where(hit, 255.0 * (generator.random(picture.shape) < 0.5), picture)
