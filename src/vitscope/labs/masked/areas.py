"""Shared by the masked labs: areas written as text, axes over areas and steps, and readings as arrays."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch

from vitscope.labs.lab import Values
from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.labs.masked.training import MaskedReading, Trajectory
from vitscope.measurement.errors import UserError
from vitscope.measurement.trials import Along, Numbers

HUANG = (
    "Huang, Wen, Chi, Liang: How transformers learn diverse attention correlations in masked vision pretraining, "
    "arXiv 2403.02233."
)


def pairs_of(text: str, what: str) -> tuple[tuple[int, int], ...]:
    """The pairs of whole numbers that ``80/4,20/8`` names, in order. Raises ``UserError`` quoting the text."""
    pairs = [part.strip().split("/") for part in text.split(",")]
    if not all(len(pair) == 2 and all(one.strip().isdecimal() for one in pair) for pair in pairs):
        raise UserError(f"{text!r} names no {what}: write pairs separated by commas, as in 80/4,20/8.")
    return tuple((int(first), int(second)) for first, second in pairs)


def describe_areas(setting: ClusteredPatches) -> str:
    """The sizes of a setting's areas, with its information gap."""
    return f"{setting.global_size}/{setting.local_size}, gap {setting.information_gap:+.2f}"


def group_name(what: str, setting: ClusteredPatches) -> str:
    """The name of a group of the run about one setting of the areas."""
    return f"{what}-{setting.global_size}-{setting.local_size}"


def areas_axis(settings: Sequence[ClusteredPatches]) -> Along:
    """The axis of settings of the areas."""
    return Along("areas", [describe_areas(one) for one in settings], "Global / local area")


def by_setting(values: Values, settings: int) -> list[Values]:
    """The values of each setting, with the axis of trials moved from first to last."""
    return [
        {name: np.moveaxis(np.split(one, settings)[place], 0, -1) for name, one in values.items()}
        for place in range(settings)
    ]


def step_axis(recorded: Sequence[int]) -> Along:
    """The axis of steps, logarithmic."""
    return Along("step", list(recorded), "Step of training", "steps", logarithmic=True)


def readings(trajectory: Trajectory) -> Values:
    """Every reading, trials by steps."""
    return {one.name: _numbers(getattr(trajectory.reading, one.name)) for one in fields(MaskedReading)}


def _numbers(values: torch.Tensor) -> Numbers:
    return values.double().numpy()
