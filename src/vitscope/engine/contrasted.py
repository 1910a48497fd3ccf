"""A contrast's results as labelled datasets: quantities along ``subject``, and their changes with intervals."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from vitscope.data import Images
from vitscope.engine.contrasting import ContrastResult, ContrastWork
from vitscope.engine.grid import Axis
from vitscope.engine.gridded import drop_quantities, rename, stack
from vitscope.engine.reading.diagnostic import AnyDiagnostic, Scene
from vitscope.engine.reading.fold import Means
from vitscope.engine.reading.jackknife import jackknife
from vitscope.measurement.estimate import Estimate
from vitscope.measurement.exact import SHOWN, Change, change_of, paired_share

SUBJECT = "subject"
_WORDS = {
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "gained": "images gained",
    "lost": "images lost",
    "p": "McNemar's exact p",
}
"""Suffixes of the numbers stored with a change, and their labels."""


def contrast_group(work: ContrastWork, result: ContrastResult, index: int, labels: Sequence[str]) -> xr.Dataset | None:
    """The group of diagnostic number ``index``; None unless the first subject and another one have results."""
    diagnostic, scene = work.diagnostics[index], Scene(work.subject.places)
    values = [diagnostic.finish(one.states[index], scene) for one in result.values]
    if not values[0] or not any(values[1:]):
        return None
    axes = (Axis(SUBJECT, tuple(labels), "model"),)
    changes = [xr.Dataset()]
    for place in range(1, len(values)):
        found = diagnostic.finish(result.changes[place].states[index], scene)
        parts = [_with_intervals(drop_quantities(found, diagnostic.nonlinear))]
        if diagnostic.nonlinear:
            groups = work.groups(result, index)
            parts.append(
                _change_by_jackknife(diagnostic, (groups[0], groups[place]), (values[0], values[place]), scene)
            )
        changes.append(xr.merge(parts, compat="no_conflicts", join="outer", combine_attrs="override"))
    whole = [stack(axes, values)]
    if any(changes):
        words = f"Change from {labels[0]}, image by image. "
        whole.append(rename(stack(axes, changes), "change", f"change from {labels[0]}", words))
    merged = xr.merge(whole, join="outer", compat="no_conflicts", combine_attrs="override")
    return merged.assign_attrs(values[0].attrs)


def scores_of_all(result: ContrastResult, labels: Sequence[str], images: Sequence[Images]) -> xr.Dataset | None:
    """The scores of every image along ``subject`` and ``image``; None without labels or classes."""
    scores = [one.scores for one in result.values]
    several = [one.dataset(its) for one, its in zip(scores, images, strict=True) if one is not None]
    if len(several) < len(labels):
        return None
    index = xr.IndexVariable(SUBJECT, list(labels), attrs={"long_name": "model"})
    joined = xr.concat(several, index, join="exact", coords="minimal", compat="override", combine_attrs="override")
    for name, array in joined.variables.items():
        array.encoding = {} if name == SUBJECT else several[0][name].encoding
    return joined


def _with_intervals(changes: xr.Dataset) -> xr.Dataset:
    """Changes with their intervals; changes of shares also with the images gained and lost, and p."""
    result = changes
    for name in _quantities(changes):
        parts = [changes[f"{name}{end}"].values for end in ("", "_error", "_count")]
        numbers = zip(*(part.ravel().tolist() for part in parts), strict=True)
        found = [_interval(Estimate(*one), bool(changes[name].attrs.get("share"))) for one in numbers]
        result = _beside(result, name, found)
    return result


def _interval(change: Estimate, is_share: bool) -> dict[str, float]:
    """The ends of the interval; for a share also the images gained and lost, and p. NaN if unknown."""
    turned = change_of(change) if is_share and change.count else None
    if isinstance(turned, Change):
        paired = paired_share(round(turned.gained), round(turned.lost), change.count)
        low, high = paired.interval(SHOWN)
        return {"low": low, "high": high, "gained": turned.gained, "lost": turned.lost, "p": paired.p_value}
    ends = (one if math.isfinite(one) else math.nan for one in change.interval(SHOWN))
    none = dict.fromkeys(("gained", "lost", "p"), math.nan) if is_share else {}
    return {**dict(zip(("low", "high"), ends, strict=True)), **none}


def _change_by_jackknife(
    diagnostic: AnyDiagnostic,
    groups: tuple[Sequence[Means], Sequence[Means]],
    values: tuple[xr.Dataset, xr.Dataset],
    scene: Scene,
) -> xr.Dataset:
    """The changes of nonlinear quantities, whose errors are the jackknife's, with Student's intervals over groups."""
    errors, count = jackknife(diagnostic, *groups, scene)
    before, after = values
    result = xr.Dataset()
    for name in (name for name in _quantities(after) if name in errors and name in before):
        mean = (after[name] - before[name]).assign_attrs(after[name].attrs)
        error = errors[name].where(mean.notnull())
        both = np.minimum(after[f"{name}_count"].values, before[f"{name}_count"].values)
        words = {"long_name": "standard error (jackknife over groups of images)", "units": after[name].attrs["units"]}
        parts = {
            name: mean,
            f"{name}_error": error.assign_attrs(words),
            f"{name}_count": after[f"{name}_count"].copy(data=both),
        }
        result = result.assign(parts)
        numbers = zip(mean.values.ravel().tolist(), error.values.ravel().tolist(), strict=True)
        result = _beside(result, name, [_interval(Estimate(*one, count), False) for one in numbers])
    return result


def _beside(result: xr.Dataset, name: str, found: Sequence[dict[str, float]]) -> xr.Dataset:
    """The dataset with these numbers, in row-major order, added to a quantity."""
    like = result[name]
    for key in found[0] if found else ():
        values = np.array([one[key] for one in found]).reshape(like.shape)
        unit = like.attrs.get("units", "1") if key in ("low", "high") else "1"
        result = result.assign({f"{name}_{key}": (like.dims, values, {"long_name": _WORDS[key], "units": unit})})
    return result


def _quantities(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset.data_vars if f"{name}_error" in dataset]
