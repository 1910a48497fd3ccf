"""Experiments: a lab, or a grid over its settings, carried out and stored as a run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np

from vitscope.engine.plan import Plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer
from vitscope.labs.lab import AbstractLab, Datasets, Values
from vitscope.labs.sweep import Chunk, Sweep
from vitscope.measurement.claim import Claim, sort_claims
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import FALSE_ALARMS, rate_of
from vitscope.measurement.points import Points, Value, parse_points
from vitscope.runs.provenance import provenance
from vitscope.runs.run import make_run
from vitscope.runs.spec import Spec


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
        return tuple(replace(self.lab, **settings) for settings in self.points.settings)

    @cached_property
    def work(self) -> Sweep:
        """The sweep that executors carry out."""
        return Sweep(variants=self.variants)

    @property
    def title(self) -> str:
        """The lab's title."""
        return self.lab.title

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.lab.name

    @property
    def total(self) -> int:
        """The number of trials at all points."""
        if not all(lab.plan_trials() for lab in self.variants):
            raise UserError(f"trials is {self.lab.settings.get('trials')}; it must be at least 1.")
        return sum(shard.stop - shard.start for shard in self.work.shards())

    def make_spec(self) -> Spec:
        """The lab, its settings and the grid."""
        settings = {name: value for name, value in self.lab.settings.items() if name not in self.grid}
        grid = {"grid": {name: list(values) for name, values in self.grid.items()}} if self.grid else {}
        asked: dict[str, object] = {"lab": self.lab.name, **settings, **grid}
        images = {"name": "none", **self.lab.images, "count": self.total, "of": "trials"}
        return Spec("lab", {"name": self.lab.title}, images, asked)

    def kept_amount(self, plan: Plan) -> int:
        """How many trials an interrupted attempt left in the plan's folder."""
        return int(count_kept(self.work, self.spec, plan))

    def answer(self, plan: Plan) -> Answer:
        """The run with its claims."""
        started = time.perf_counter()
        chunks = sorted(fold_work(self.work, self.spec, plan, self.total).items(), key=lambda item: item[0].start)
        found = [
            lab.datasets_of(_join_chunks([chunk for shard, chunk in chunks if shard.block == block]))
            for block, lab in enumerate(self.variants)
        ]
        groups = {name: self.points.stack([datasets[name] for datasets in found]) for name in found[0]}
        origin = provenance(time.perf_counter() - started, plan.command)
        run = make_run(self.spec, groups, self.total, provenance=origin, notes=self.lab.notes)
        tests = sum(claim.rate is not None for claim in self._claims(found, FALSE_ALARMS))
        return Answer(run.with_claims(sort_claims(self._claims(found, rate_of(tests)))))

    def _claims(self, found: Sequence[Datasets], rate: float) -> list[Claim]:
        """The claims at all points, each test at this false-alarm rate."""
        each = zip(self.variants, self.points.names, found, strict=True)
        return [_add_point(point, claim) for lab, point, datasets in each for claim in lab.claims(datasets, rate)]

    @cached_property
    def points(self) -> Points:
        """The grid's points; one if there is no grid."""
        return Points(self.grid)


def _add_point(point: str, claim: Claim) -> Claim:
    """The claim, named with the point of the grid at which it is made."""
    if not point:
        return claim
    return replace(claim, name=f"{claim.name} at {point}", statement=f"At {point}: {claim.statement}")


def grid_of(lab: AbstractLab[Any], texts: Mapping[str, str]) -> Experiment:
    """The experiment over a grid written as text, as :func:`~vitscope.measurement.points.parse_points` reads it.

    Fields may go by their symbols. A field that is itself a list, such as an axis of the lab, takes its text whole.
    """
    lists = {one.name for one in fields(lab) if one.type is str}
    names = {**{name: name for name in lab.settings}, **lab.symbols}
    whole = {name: text for name, text in texts.items() if names.get(name) in lists}
    points = parse_points(lab.name, type(lab), names, {name: one for name, one in texts.items() if name not in whole})
    return Experiment(replace(lab, **{names[name]: text for name, text in whole.items()}), points.values)


def _join_chunks(chunks: Sequence[Chunk]) -> Values:
    return {name: np.concatenate([chunk.values[name] for chunk in chunks]) for name in chunks[0].values}
