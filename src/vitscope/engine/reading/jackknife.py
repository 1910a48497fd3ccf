"""Errors of what is not a mean over images: the conclusion repeated, each time without a group of the images."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from vitscope.engine.reading.diagnostic import AnyDiagnostic, Scene
from vitscope.engine.reading.fold import Means, Observations

GROUPS = 50
"""Groups of images, at most; with fewer images each is a group of its own."""


@lru_cache(maxsize=8)
def _groups_of(count: int) -> Int[Tensor, " images"]:
    """The group of each of ``count`` images; groups are as equal in size as possible, and drawn with a fixed seed.

    They are random because images often come sorted by class, and depend only on the number of images.
    """
    return torch.from_numpy(np.random.default_rng(0).permutation(count) % max(1, min(GROUPS, count)))


def empty_groups(count: int) -> tuple[Means, ...]:
    """The states of the groups of ``count`` images before the first batch."""
    return (Means(),) * min(GROUPS, count)


def update_groups(
    states: Sequence[Means], observations: Observations, images: Int[Tensor, " batch"], count: int
) -> tuple[Means, ...]:
    """The groups' states with one more batch: ``images`` are its images' numbers, out of ``count``."""
    updated, groups = list(states), _groups_of(count)[images]
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero()[:, 0]
        updated[group] = states[group].update(
            {key: values[rows.to(values.device)] for key, values in observations.items()}
        )
    return tuple(updated)


def jackknife(
    diagnostic: AnyDiagnostic, before: Sequence[Means], after: Sequence[Means], scene: Scene
) -> tuple[xr.Dataset, int]:
    r"""The standard errors of the changes of a diagnostic's nonlinear quantities, and the number of groups used.

    .. math:: \sqrt{\frac{G - 1}{G} \sum_g (\Delta_{(g)} - \bar\Delta)^2}

    with the change :math:`\Delta_{(g)}` over all images but those of group g, the same images for both subjects. Right
    for smooth functions of means (Efron and Stein, Annals of Statistics 1981); too large if an expected calibration
    error has a bin without a gap. ``before`` and ``after`` are the groups' states; groups without images are ignored.
    Cost: two conclusions per group.
    """
    held = [(one, two) for one, two in zip(before, after, strict=True) if one.moments and two.moments]
    left = [_without_each([pair[side] for pair in held]) for side in (0, 1)]
    changes = [
        _conclude(diagnostic, two, scene) - _conclude(diagnostic, one, scene) for one, two in zip(*left, strict=True)
    ]
    if len(changes) < 2:
        return xr.Dataset(), len(changes)
    several = xr.concat(changes, "group")
    return np.sqrt((len(changes) - 1) * several.var("group", skipna=False)), len(changes)


def _without_each(states: Sequence[Means]) -> list[Means]:
    """For each state, all the others merged, by merging from both ends."""
    from_start = list(accumulate(states, Means.merge, initial=Means()))
    from_end = list(accumulate(reversed(states), Means.merge, initial=Means()))[::-1]
    return [one.merge(other) for one, other in zip(from_start, from_end[1:], strict=False)]


def _conclude(diagnostic: AnyDiagnostic, state: Means, scene: Scene) -> xr.Dataset:
    found = diagnostic.finish(state, scene)
    return found[[name for name in found.data_vars if name in diagnostic.nonlinear]].drop_attrs()
