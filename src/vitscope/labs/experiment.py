"""Experiments: a lab, or a grid over its settings, carried out and put down as a run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Literal, cast, final, get_args, get_origin

import numpy as np
import xarray as xr

from vitscope.engine.plan import Plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer
from vitscope.labs.dataset import Along, Entries
from vitscope.labs.lab import AbstractLab, Datasets, Values
from vitscope.labs.sweep import Chunk, Sweep
from vitscope.measurement.axes import AXES
from vitscope.measurement.claim import Claim, foremost
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import FALSE_ALARMS, rate_of
from vitscope.measurement.ranges import parse_numbers
from vitscope.runs.provenance import provenance
from vitscope.runs.run import make_run
from vitscope.runs.spec import Spec

Value = bool | int | float | str


@final
@dataclass(frozen=True)
class Experiment(AbstractQuestion):
    """A lab at every point of a grid over its settings; without a grid, the lab itself.

    The grid's settings become axes of every quantity, before the lab's own. Claims are made at each point.
    """

    lab: AbstractLab[Any]
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict[str, tuple[Value, ...]])
    counted: ClassVar[str] = "trials"

    @cached_property
    def variants(self) -> tuple[AbstractLab[Any], ...]:
        """The lab at each point, the last axis fastest."""
        return tuple(replace(self.lab, **dict(zip(self.grid, point, strict=True))) for point in self._points)

    @cached_property
    def work(self) -> Sweep:
        """What executors carry out."""
        return Sweep(variants=self.variants)

    @property
    def title(self) -> str:
        """The lab's."""
        return self.lab.title

    @property
    def name(self) -> str:
        """The lab's."""
        return self.lab.name

    @property
    def total(self) -> int:
        """How many trials there are in all."""
        if not all(lab.planned() for lab in self.variants):
            raise UserError(f"trials is {self.lab.settings.get('trials')}; it must be at least 1.")
        return sum(shard.stop - shard.start for shard in self.work.shards())

    def make_spec(self) -> Spec:
        """The lab, its settings and the grid."""
        settings = {name: value for name, value in self.lab.settings.items() if name not in self.grid}
        grid = {"grid": {name: list(values) for name, values in self.grid.items()}} if self.grid else {}
        asked: dict[str, object] = {"lab": self.lab.name, **settings, **grid}
        images = {"name": "none", **self.lab.images, "count": self.total, "of": "trials"}
        return Spec("lab", {"name": self.lab.title}, images, asked)

    def kept(self, plan: Plan) -> int:
        """How many trials an interrupted attempt left in the plan's folder."""
        return int(count_kept(self.work, self.spec, plan))

    def answer(self, plan: Plan) -> Answer:
        """The run with its claims."""
        started = time.perf_counter()
        chunks = sorted(fold_work(self.work, self.spec, plan, self.total).items(), key=lambda item: item[0].start)
        found = [
            lab.measured(_joined([chunk for shard, chunk in chunks if shard.block == block]))
            for block, lab in enumerate(self.variants)
        ]
        groups = {name: _stacked(self._axes, [datasets[name] for datasets in found]) for name in found[0]}
        origin = provenance(time.perf_counter() - started, plan.command)
        run = make_run(self.spec, groups, self.total, provenance=origin, notes=self.lab.notes)
        tests = sum(claim.rate is not None for claim in self._claims(found, FALSE_ALARMS))
        return Answer(run.with_claims(foremost(self._claims(found, rate_of(tests)))))

    def _claims(self, found: Sequence[Datasets], rate: float) -> list[Claim]:
        """The claims at all points; their tests share the false-alarm rate of a run among them."""
        each = zip(self.variants, self._points, found, strict=True)
        return [self._at(point, claim) for lab, point, datasets in each for claim in lab.claims(datasets, rate)]

    @property
    def _points(self) -> list[tuple[Value, ...]]:
        return list(product(*self.grid.values()))

    @property
    def _axes(self) -> list[Along]:
        return [
            Along(name, cast(Entries, [_entry(one) for one in values]), AXES[name])
            for name, values in self.grid.items()
        ]

    def _at(self, point: tuple[Value, ...], claim: Claim) -> Claim:
        if not point:
            return claim
        where = ", ".join(
            f"{name.replace('_', ' ')} {_said(value)}" for name, value in zip(self.grid, point, strict=True)
        )
        return replace(claim, name=f"{claim.name} at {where}", statement=f"At {where}: {claim.statement}")


def grid_of(lab: AbstractLab[Any], texts: Mapping[str, str]) -> Experiment:
    """The experiment of a grid that is written as text: of each field ``0.1,0.2`` or, of numbers, ``0.1:0.5:9``.

    Fields may go by their symbols. One that is itself a list, as axes of the lab are, takes its values whole. Raises
    ``UserError`` for a field that the lab does not have and for a value that is none of the field's.
    """
    types = {one.name: one.type for one in fields(lab) if one.name in lab.settings}
    grid: dict[str, tuple[Value, ...]] = {}
    for given, text in texts.items():
        name = lab.symbols.get(given, given)
        if name not in types:
            raise UserError(f"{lab.name} has no setting {given!r}; it has: {', '.join(types)}.")
        if name in grid:
            raise UserError(f"{given} is {name}, which the grid has already: give it once.")
        if types[name] is str:
            lab = replace(lab, **{name: text})
        else:
            grid[name] = _values(name, text, types[name])
    return Experiment(lab, grid)


def _values(name: str, text: str, kind: object) -> tuple[Value, ...]:
    """The values of a field, each once."""
    if ":" not in text:
        return tuple(dict.fromkeys(_value(name, part.strip(), kind) for part in text.split(",")))
    if kind is not int and kind is not float:
        raise UserError(f"{text!r} is a range, and {name} is no number: write its values with commas between.")
    numbers = parse_numbers(text)
    if kind is int and any(one != int(one) for one in numbers):
        raise UserError(
            f"{text!r} has values that are not whole, and {name} is: {', '.join(f'{n:g}' for n in numbers)}."
        )
    return tuple(int(one) if kind is int else one for one in numbers)


def _value(name: str, text: str, kind: object) -> Value:
    """One value of a field."""
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
    if kind is bool:
        choices = ("True", "False")
    if choices and text not in choices:
        raise UserError(f"{name} is one of {', '.join(choices)}, not {text!r}.")
    if choices:
        return text == "True" if kind is bool else text
    try:
        return int(text) if kind is int else float(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no value of {name}: write numbers with commas, as in {name}=1,2.") from error


def _entry(value: Value) -> float | int | str:
    return str(value) if isinstance(value, bool | str) else value


def _said(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _joined(chunks: Sequence[Chunk]) -> Values:
    return {name: np.concatenate([chunk.values[name] for chunk in chunks]) for name in chunks[0].values}


def _stacked(axes: Sequence[Along], datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """The points' datasets along the grid's axes; what a point does not have is NaN with count 0."""
    if not axes:
        return datasets[0]
    size = len(datasets) // len(axes[0].values)
    parts = [_stacked(axes[1:], datasets[start : start + size]) for start in range(0, len(datasets), size)]
    joined = xr.concat(parts, dim=axes[0].name, join="outer", combine_attrs="override")
    counts = {name: joined[name].fillna(0).astype(np.int64) for name in joined if str(name).endswith("_count")}
    return joined.assign_coords({axes[0].name: axes[0].coordinate}).assign(counts)
