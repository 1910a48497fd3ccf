"""Read a run's quantities as estimates with the layer and head they belong to."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import xarray as xr

from vitscope.findings.finding import Judgement
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import Estimate, OverImages, above, average, opposite, samples_needed
from vitscope.measurement.exact import change_of
from vitscope.runs.run import Run

TOKENS = frozenset({"attention", "token-mixing"})
"""Kinds of unit in networks whose feature maps are tokens."""


@dataclass(frozen=True)
class ReadEntry:
    """One number of a quantity, with its layer, unit, kind, stage and, if it has one, head."""

    layer: int
    unit: str
    kind: str
    stage: int
    head: int | None
    estimate: Estimate

    @property
    def place(self) -> str:
        """Layer, head and unit in words."""
        head = "" if self.head is None else f" head {self.head}"
        return f"layer {self.layer}{head} ({self.unit})"


def read_number(run: Run, name: str) -> Estimate | None:
    """A quantity without an axis, as in ``accuracy/top1``; None if the run does not hold such a number."""
    dataset = _dataset(run, name)
    quantity = name.partition("/")[2]
    if dataset is None or dataset[quantity].ndim or math.isnan(float(dataset[quantity])):
        return None
    mean, error, count = (dataset[f"{quantity}{part}"].item() for part in ("", "_error", "_count"))
    return Estimate(mean, error, count)


def read_entries(run: Run, name: str, span: float = math.inf) -> tuple[ReadEntry, ...]:
    """A quantity over depth, and over heads if it has them, in order; what was not observed is left out.

    ``span`` is the width of the range in which the number of one image lies.
    """
    dataset = _dataset(run, name)
    if dataset is None:
        return ()
    quantity = name.partition("/")[2]
    mean, error, count = (dataset[f"{quantity}{part}"].values for part in ("", "_error", "_count"))
    places = zip(*(dataset[label].values.tolist() for label in ("layer", "unit", "kind", "stage")), strict=True)
    entries: list[ReadEntry] = []
    for row, (layer, unit, kind, stage) in enumerate(places):
        for head in range(mean.shape[1]) if mean.ndim == 2 else (None,):
            at = row if head is None else (row, head)
            if count[at] > 0 and not math.isnan(mean[at]):
                estimate = OverImages(float(mean[at]), float(error[at]), int(count[at]), span=span)
                entries.append(ReadEntry(int(layer), str(unit), str(kind), int(stage), head, estimate))
    return tuple(entries)


def last_tokens(run: Run, name: str, span: float = math.inf) -> ReadEntry | None:
    """A quantity of patch tokens after the last unit; None if no unit of the last stage attends or mixes tokens."""
    entries = read_entries(run, name, span)
    tokens = any(entry.kind in TOKENS and entry.stage == entries[-1].stage for entry in entries)
    return entries[-1] if tokens else None


def by_layer(entries: Sequence[ReadEntry]) -> tuple[ReadEntry, ...]:
    """The mean over the heads of each layer."""
    layers = {entry.layer: entry for entry in entries}
    return tuple(
        replace(one, head=None, estimate=average([e.estimate for e in entries if e.layer == layer]))
        for layer, one in layers.items()
    )


def read_lesions(run: Run) -> tuple[ReadEntry, ...]:
    """The change of top-1 accuracy without each single unit; heads, groups and branch means are not included.

    The study's settings say what was left out.
    """
    dataset = _dataset(run, "lesion-accuracy/top1_change")
    if dataset is None or dataset["top1_change"].dims != ("lesion",):
        return ()
    numbers = (dataset[f"top1_change{part}"].values.tolist() for part in ("", "_error", "_count"))
    labels = (dataset[f"lesion{part}"].values.tolist() for part in ("", "_unit", "_kind", "_stage"))
    lesions = [
        one[0] if one and len(one) == 1 else {} for one in settings_of_study(run, "lesion", dataset["lesion"].size)
    ]
    found = zip(lesions, zip(*labels, strict=True), zip(*numbers, strict=True), strict=True)
    return tuple(
        ReadEntry(int(layer), str(unit), str(kind), int(stage), None, change_of(Estimate(*estimate)))
        for lesion, (layer, unit, kind, stage), estimate in found
        if lesion.get("layers") == [layer] and not lesion.get("means")
    )


def read_settings(run: Run, name: str, axis: str) -> tuple[tuple[float, Mapping[str, Any], Estimate], ...]:
    """The change of a share along the only axis of a study: the axis value, what was done, and the estimate."""
    dataset = _dataset(run, name)
    study, _, quantity = name.partition("-accuracy/")
    if dataset is None or dataset[quantity].dims != (axis,):
        return ()
    columns = (dataset[label].values.tolist() for label in (axis, quantity, f"{quantity}_error", f"{quantity}_count"))
    rows = zip(settings_of_study(run, study, dataset[axis].size), zip(*columns, strict=True), strict=True)
    return tuple((float(at), done[0], change_of(Estimate(*one))) for done, (at, *one) in rows if done)


def settings_of_study(run: Run, study: str, points: int) -> list[list[Mapping[str, Any]]]:
    """The settings of a study's interventions at each of its points; empty lists if the run does not say."""
    asked = cast(Mapping[str, Any], run.spec.settings)
    own = asked if asked.get("study") == study else asked.get("studies", {}).get(study, {})
    found = own.get("settings", [])
    return found if len(found) == points else [[]] * points


@dataclass(frozen=True)
class AnyEntry:
    """Whether any of many entries passes a test; ``ranked`` holds all of them, hits first, then strongest first."""

    verdict: Verdict
    hits: int
    ranked: tuple[ReadEntry, ...]
    needed: Callable[[], int | None]
    """How many images would decide it, if it is undecided."""
    obstacle: str = ""
    """Why more images would not decide it, if they would not."""

    def text(self, noun: str, shown: int = 3) -> str:
        """How many hit, and the strongest of them, or the closest entry if none does."""
        found = self.ranked[: min(shown, self.hits) or 1]
        places = "; ".join(f"{entry.place}: {entry.estimate.text}" for entry in found)
        return f"{self.hits} of {len(self.ranked)} {noun}; {'strongest' if self.hits else 'closest'} {places}"

    def judgement(self, noun: str) -> Judgement:
        """The judgement of a finding; ``noun`` names the entries in its figure."""
        return Judgement(self.verdict, self.text(noun), self.strength, self.needed, self.obstacle)

    @property
    def strength(self) -> float:
        """From 0.6 for a single hit among many to 1 for four in ten or more; 1 without hits."""
        return min(1.0, 0.6 + self.hits / len(self.ranked)) if self.hits else 1.0


def some_above(entries: Sequence[ReadEntry], threshold: float, rate: float) -> AnyEntry:
    """Whether any entry lies above a threshold.

    For a hit each is tested at the rate divided by their number, so that the rate is that of any false hit among them
    (Bonferroni). It fails if each of them lies below at the whole rate: if one does not, that one's test must err.
    """
    return _search(entries, threshold, rate, 1)


def some_below(entries: Sequence[ReadEntry], threshold: float, rate: float) -> AnyEntry:
    """Whether any entry lies below a threshold, tested as by :func:`some_above`."""
    return _search(entries, threshold, rate, -1)


def _search(entries: Sequence[ReadEntry], threshold: float, rate: float, sign: int) -> AnyEntry:
    def test(estimate: Estimate, at: float) -> Verdict:
        found = above(estimate, threshold, at)
        return found if sign > 0 else opposite(found)

    def verdict(estimates: Sequence[Estimate]) -> Verdict:
        if any(test(one, rate / len(entries)) is Verdict.HOLDS for one in estimates):
            return Verdict.HOLDS
        fails = all(test(one, rate) is Verdict.FAILS for one in estimates)
        return Verdict.FAILS if fails else Verdict.UNDECIDED

    found = [(test(entry.estimate, rate / len(entries)) is Verdict.HOLDS, entry) for entry in entries]
    ranked = sorted(found, key=lambda pair: (not pair[0], -sign * pair[1].estimate.mean))
    whole = verdict([entry.estimate for entry in entries])
    count = max(entry.estimate.count for entry in entries)
    more = partial(samples_needed, lambda n: verdict([entry.estimate.at(n) for entry in entries]), count)
    open_still = (entry for entry in entries if test(entry.estimate, rate) is not Verdict.FAILS)
    obstacle = next(filter(None, (_obstacle(one.estimate, f" after {one.place}") for one in open_still)), "")
    return AnyEntry(whole, sum(hit for hit, _ in found), tuple(entry for _, entry in ranked), more, obstacle)


def _obstacle(estimate: Estimate, where: str = "") -> str:
    """Why more images would not decide it, if they would not: no finite value, or the same for every image."""
    if estimate.count < 2:
        return ""
    if not (math.isfinite(estimate.mean) and math.isfinite(estimate.error)):
        return f"No number of images can decide it: the value measured{where} is not finite."
    unseen = math.isinf(estimate.span) if isinstance(estimate, OverImages) else type(estimate) is Estimate
    if estimate.error == 0 and unseen:
        return f"The value is the same for every image{where}, which says nothing of others: examine different images."
    return ""


def judge_above(estimate: Estimate, threshold: float, rate: float, figure: str, strength: float = 1.0) -> Judgement:
    """Whether an estimate lies above a threshold, and how many images would decide it."""
    more = partial(samples_needed, lambda n: above(estimate.at(n), threshold, rate), estimate.count)
    return Judgement(above(estimate, threshold, rate), figure, strength, more, _obstacle(estimate))


def judge_below(estimate: Estimate, threshold: float, rate: float, figure: str, strength: float = 1.0) -> Judgement:
    """Whether an estimate lies below a threshold, as in :func:`judge_above`."""
    found = judge_above(estimate, threshold, rate, figure, strength)
    return replace(found, verdict=opposite(found.verdict))


def _dataset(run: Run, name: str) -> xr.Dataset | None:
    diagnostic, _, quantity = name.partition("/")
    if diagnostic not in run:
        return None
    dataset = run.tree[diagnostic].to_dataset()
    return dataset if quantity in dataset else None
