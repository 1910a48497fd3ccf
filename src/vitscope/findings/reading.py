"""Reading a run's quantities as estimates with the layer and head they belong to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import xarray as xr

from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, Estimate, above, average, below
from vitscope.runs.run import Run

Test = Callable[[Estimate, float, float], Verdict]


@dataclass(frozen=True)
class Entry:
    """One number of a quantity: after which layer, or of which head of it, of what kind and stage."""

    layer: int
    unit: str
    kind: str
    stage: int
    head: int | None
    estimate: Estimate

    @property
    def place(self) -> str:
        """What a person would call it."""
        head = "" if self.head is None else f" head {self.head}"
        return f"layer {self.layer}{head} ({self.unit})"


def read_number(run: Run, name: str) -> Estimate | None:
    """A quantity without an axis, as in ``accuracy/top1``; None where the run does not hold it."""
    dataset = _dataset(run, name)
    quantity = name.partition("/")[2]
    if dataset is None or dataset[quantity].ndim or math.isnan(float(dataset[quantity])):
        return None
    mean, error, count = (dataset[f"{quantity}{part}"].item() for part in ("", "_error", "_count"))
    return Estimate(mean, error, count)


def read_entries(run: Run, name: str, depth: str = "layer") -> tuple[Entry, ...]:
    """A quantity over depth, and over heads where it has them, in order; what was not observed is left out.

    ``depth`` is the axis over depth; that of a study's units has its labels under names of its own.
    """
    dataset = _dataset(run, name)
    if dataset is None:
        return ()
    quantity = name.partition("/")[2]
    mean, error, count = (dataset[f"{quantity}{part}"].values for part in ("", "_error", "_count"))
    labels = (depth, *(name if depth == "layer" else f"{depth}_{name}" for name in ("unit", "kind", "stage")))
    places = zip(*(dataset[label].values.tolist() for label in labels), strict=True)
    entries: list[Entry] = []
    for row, (layer, unit, kind, stage) in enumerate(places):
        for head in range(mean.shape[1]) if mean.ndim == 2 else (None,):
            at = row if head is None else (row, head)
            if count[at] > 0 and not math.isnan(mean[at]):
                estimate = Estimate(float(mean[at]), float(error[at]), int(count[at]))
                entries.append(Entry(int(layer), str(unit), str(kind), int(stage), head, estimate))
    return tuple(entries)


def by_layer(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The mean over the heads of each layer."""
    layers = {entry.layer: entry for entry in entries}
    return tuple(
        Entry(layer, one.unit, one.kind, one.stage, None, average([e.estimate for e in entries if e.layer == layer]))
        for layer, one in layers.items()
    )


def read_settings(run: Run, name: str, axis: str) -> tuple[tuple[float, Estimate], ...]:
    """A quantity of a study along its only axis, a number: the axis' value and the estimate at each setting."""
    dataset = _dataset(run, name)
    quantity = name.partition("/")[2]
    if dataset is None or dataset[quantity].dims != (axis,):
        return ()
    columns = (dataset[label].values.tolist() for label in (axis, quantity, f"{quantity}_error", f"{quantity}_count"))
    return tuple((float(at), Estimate(*numbers)) for at, *numbers in zip(*columns, strict=True))


@dataclass(frozen=True)
class Search:
    """Whether any of many entries passes a test; ``ranked`` are all of them, strongest first, the hits leading."""

    verdict: Verdict
    hits: int
    ranked: tuple[Entry, ...]

    def text(self, noun: str, shown: int = 3) -> str:
        """How many hit and the strongest of them, or the nearest where none does."""
        found = self.ranked[: min(shown, self.hits) or 1]
        places = "; ".join(f"{entry.place}: {entry.estimate.text}" for entry in found)
        return f"{self.hits} of {len(self.ranked)} {noun}; {'foremost' if self.hits else 'nearest'} {places}"

    @property
    def strength(self) -> float:
        """From 0.6 for a single hit among many to 1 for four in ten; 1 where the verdict is not that of hits."""
        return min(1.0, 0.6 + self.hits / len(self.ranked)) if self.hits else 1.0


def some_above(entries: Sequence[Entry], threshold: float) -> Search:
    """Whether any entry lies above a threshold.

    Each is tested at the false-alarm rate divided by their number, so that the rate is that of any false alarm among
    them (Bonferroni). It fails where all of them fail.
    """
    return _search(entries, threshold, above, -1)


def some_below(entries: Sequence[Entry], threshold: float) -> Search:
    """Whether any entry lies below a threshold, tested as by :func:`some_above`."""
    return _search(entries, threshold, below, 1)


def _search(entries: Sequence[Entry], threshold: float, test: Test, order: int) -> Search:
    rate = FALSE_ALARMS / len(entries)
    tested = [(test(entry.estimate, threshold, rate), entry) for entry in entries]
    tested.sort(key=lambda pair: (pair[0] is not Verdict.HOLDS, order * pair[1].estimate.mean))
    hits = sum(verdict is Verdict.HOLDS for verdict, _ in tested)
    none = all(verdict is Verdict.FAILS for verdict, _ in tested)
    verdict = Verdict.HOLDS if hits else Verdict.FAILS if none else Verdict.UNDECIDED
    return Search(verdict, hits, tuple(entry for _, entry in tested))


def _dataset(run: Run, name: str) -> xr.Dataset | None:
    diagnostic, _, quantity = name.partition("/")
    if diagnostic not in run:
        return None
    dataset = run.tree[diagnostic].to_dataset()
    return dataset if quantity in dataset else None
