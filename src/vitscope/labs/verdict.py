"""Verdicts of labs: entries of their datasets as estimates, and how many more trials would decide."""

import math
from collections.abc import Callable

import xarray as xr

from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import Estimate, samples_needed, together

FLOOR = "error_floor"
"""Attribute of a quantity: the part of its error that more trials do not reduce."""

_ALIKE = "One trial, or several identical ones, say nothing about others: run more (--trials)."
_COARSE = "More trials will hardly decide it: the numbers tried are too far apart. Give --samples more of them."
_ON_THE_THRESHOLD = "More trials will hardly decide it: what was measured lies on the threshold itself."


def read_mean(dataset: xr.Dataset, name: str, **at: object) -> Estimate:
    """One entry of a quantity, as an estimate."""
    mean, error, count = (float(dataset[f"{name}{part}"].sel(at).item()) for part in ("", "_error", "_count"))
    return Estimate(mean, error, int(count), float(dataset[name].attrs.get(FLOOR, 0.0)))


def judge_all(judge: Callable[[Estimate], Verdict], *estimates: Estimate) -> tuple[Verdict, str]:
    """The verdict of a statement that needs all of the estimates, and if undecided, how many trials would decide it."""
    verdict = together(*map(judge, estimates))
    if verdict is not Verdict.UNDECIDED or not all(math.isfinite(one.mean) for one in estimates):
        return verdict, ""
    count = min(one.count for one in estimates)
    more = samples_needed(lambda trials: together(*(judge(one.at(trials)) for one in estimates)), count)
    if more is None:
        alike = not all(one.error > 0 for one in estimates)
        coarse = any(one.floor > 0 for one in estimates)
        return verdict, _ALIKE if alike else _COARSE if coarse else _ON_THE_THRESHOLD
    return verdict, f"About {more:,} trials would decide it, if they are like those seen (--trials {more})."


def join_advice(*parts: str) -> str:
    """The parts that are not empty, as one text."""
    return " ".join(part for part in parts if part)
