"""What a model gets wrong, as the page shows it: weakest classes, confused classes, and the pictures."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from vitscope.engine.reading.mistakes import MISTAKES
from vitscope.measurement.exact import SHOWN, clopper_pearson
from vitscope.report.measured import quantities_of
from vitscope.report.table import Table, tables
from vitscope.runs.run import Run

WEAKEST = 6
"""Most classes shown, of those with at least one mistake."""
PAIRS = 6
"""Most pairs of classes shown."""


@dataclass(frozen=True)
class WeakClass:
    """A class: how many of its images are right, as a share with its 95 % interval."""

    name: str
    right: int
    count: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share of its images that are right."""
        return self.right / self.count


@dataclass(frozen=True)
class Confusion:
    """How many images of one class are mistaken for another, and their share of the class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Mistaken:
    """A picture, as a data URI, and its caption."""

    picture: str
    name: str
    true: str
    predicted: str
    confidence: str


@dataclass(frozen=True)
class MistakesView:
    """All that is shown of a run's mistakes: ``surest`` are the most confident, ``costliest`` have the largest loss."""

    wrong: int
    count: int
    class_count: int
    weakest: tuple[WeakClass, ...]
    confusions: tuple[Confusion, ...]
    surest: tuple[Mistaken, ...]
    costliest: tuple[Mistaken, ...]
    table: Table


def mistakes_of(run: Run) -> MistakesView | None:
    """The view of a run that holds mistakes; None for one that does not."""
    if MISTAKES not in run:
        return None
    found = run.tree[MISTAKES].to_dataset()
    classes = _classes(found)
    count = sum(one.count for one in classes)
    weak = [one for one in classes if one.right < one.count]
    named = quantities_of(MISTAKES, found[[f"class_accuracy{part}" for part in ("", "_error", "_count")]])
    return MistakesView(
        wrong=count - sum(one.right for one in classes),
        count=count,
        class_count=len(classes),
        weakest=tuple(sorted(weak, key=lambda one: (one.share, -one.count))[:WEAKEST]),
        confusions=_confusions(found),
        surest=_pictures(found, "by_confidence"),
        costliest=_pictures(found, "by_loss", without="by_confidence"),
        table=tables(named)[0],
    )


def _classes(found: xr.Dataset) -> list[WeakClass]:
    columns = (found[name].values.tolist() for name in ("classes_name", "class_accuracy", "class_accuracy_count"))
    return [
        WeakClass(str(name), round(share * n), n, *clopper_pearson(float(round(share * n)), n, SHOWN))
        for name, share, n in zip(*columns, strict=True)
    ]


def _confusions(found: xr.Dataset) -> tuple[Confusion, ...]:
    names = ("mistake_true", "mistake_predicted", "mistake_count", "mistake_share")
    rows = zip(*(found[name].values.tolist() for name in names), strict=True)
    return tuple(Confusion(*row) for row in rows)[:PAIRS]


def _pictures(found: xr.Dataset, order: str, without: str = "") -> tuple[Mistaken, ...]:
    """The pictures in an order, without those in another order."""
    places: Any = found[order].values
    rows = [int(row) for row in np.argsort(places, kind="stable") if places[row] >= 0]
    if without:
        rows = [row for row in rows if int(found[without].values[row]) < 0]
    return tuple(_picture(found.isel(example=row)) for row in rows)


def _picture(one: xr.Dataset) -> Mistaken:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(one["thumbnail"].values)).save(content, "PNG", optimize=True)
    sure = float(one["example_confidence"])
    return Mistaken(
        picture=f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}",
        name=str(one["example"].item()),
        true=str(one["example_true"].item()),
        predicted=str(one["example_predicted"].item()),
        confidence=f"{sure:.0%} sure" if np.isfinite(sure) else "no finite logits",
    )
