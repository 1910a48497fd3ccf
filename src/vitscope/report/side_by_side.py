"""Several runs on one page: facts and numbers side by side, and each figure with a line for every run."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from markupsafe import Markup

from vitscope.measurement.claim import Claim
from vitscope.measurement.errors import UserError
from vitscope.report.comparison import DEPTH_RANGE, difference_tables, differences, format_difference, join_runs
from vitscope.report.drawing import drawings
from vitscope.report.drawing.series import MARKS, css
from vitscope.report.measured import MeasuredQuantity, as_texts, quantities_of
from vitscope.report.number import with_error, with_unit
from vitscope.report.page import AsRuns, encode, page_path, render, runs_of
from vitscope.report.pairing import Pairings, pair
from vitscope.report.side import Side, alike, is_training, same_images, sides, timeless
from vitscope.report.strip import Cell, Strip, strip
from vitscope.report.text import definition
from vitscope.report.view import DiagnosticView, RunView, cut, figure_views, format_value, order_questions
from vitscope.runs.whole import write_whole

FEWEST, MOST = 2, 12
_PREFIX = "compare"


def write_comparison(runs: AsRuns, path: str | os.PathLike[str], labels: Sequence[str] | None = None) -> Path:
    """Write the page, as :func:`vitscope.report.compare` says."""
    chosen = runs_of(runs)
    if isinstance(labels, str):
        raise UserError(f"The labels are {labels!r}; give a list with one label for each run.")
    if not FEWEST <= len(chosen) <= MOST:
        raise UserError(f"A comparison takes {FEWEST} to {MOST} runs; {len(chosen)} were given.")
    target = page_path(path)
    html = render("compare.html.j2", view=CompareView(sides(chosen, labels)), marks=MARKS, colour=css)
    return write_whole(target, encode(html))


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table with a cell for each run; ``differs`` marks facts that are not the same in all."""

    name: str
    cells: tuple[str, ...]
    differs: bool = False


@dataclass(frozen=True)
class CompareView:
    """All that is shown of the runs together."""

    sides: tuple[Side, ...]

    @cached_property
    def runs(self) -> tuple[RunView, ...]:
        """Each run as shown on its own page."""
        return tuple(RunView(side.run, f"{_PREFIX}{number}") for number, side in enumerate(self.sides, start=1))

    @property
    def title(self) -> str:
        """What is compared."""
        models = list(dict.fromkeys(timeless(side.model) for side in self.sides))
        if is_training(self.sides) and len(models) == 1:
            return f"{models[0]} from {self.sides[0].label} to {self.sides[-1].label}"
        return " against ".join(models) if 1 < len(models) <= 3 else f"{len(self.sides)} runs of {', '.join(models)}"

    @cached_property
    def exact(self) -> bool:
        """Whether layers correspond in all runs."""
        return alike(side.run for side in self.sides)

    @cached_property
    def strip(self) -> Strip:
        """The anatomy that all share; empty if they differ."""
        return strip(self.sides[0].run.anatomy) if self.exact else Strip(())

    @cached_property
    def strips(self) -> tuple[tuple[Side, tuple[tuple[float, float, Cell], ...]], ...]:
        """Each run's cells with their place and width in percent of the axis of relative depth."""
        known = [(side, strip(side.run.anatomy)) for side in self.sides if side.units]
        return tuple((side, _spread(one, side.units)) for side, one in known)

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """The kinds of unit in any of the runs, with the names of their colours."""
        cells = [cell for _, placed in self.strips for _, _, cell in placed]
        return tuple(dict.fromkeys((cell.kind, cell.colour) for cell in cells))

    @property
    def alignment(self) -> str:
        """How figures over depth are aligned."""
        if self.exact:
            return "All models have the same units in the same order, so figures over depth compare unit with unit."
        return (
            "The models have different units, so figures over depth are aligned by relative depth: 0 after the stem, "
            "1 after the last unit. Tables compare means over the units of each quarter of the depth."
        )

    @property
    def errors(self) -> str:
        """How the errors of the differences are computed, in words."""
        if self.pairings.found:
            shown = {one.name for one in self.diagnostics}
            named = ", ".join(one for one in self.pairings.paired_addresses if one.partition("/")[0] in shown)
            return (
                f"For runs that saw the same images, the errors of differences in {named or 'accuracy'} are computed "
                "image by image. All other differences are given the error of independent runs, the root of the sum of "
                "the squared errors: it is too large, and so on the safe side, if models behave alike on the same "
                "images."
            )
        if same_images(side.run for side in self.sides):
            return (
                "All runs saw the same images (their fingerprints are equal), but hold no values image by image. So "
                "each difference is given the error of independent runs, the root of the sum of the squared errors: it "
                "is too large, and so on the safe side, if the models err on the same images."
            )
        return (
            "The runs did not see the same images, so a difference is due to models and images together; its error is "
            "that of independent runs, the root of the sum of the squared errors."
        )

    @cached_property
    def pairings(self) -> Pairings:
        """The first run compared with the others image by image."""
        return pair(self.sides)

    @cached_property
    def facts(self) -> tuple[ComparedRow, ...]:
        """Facts about the runs; those that differ are marked."""
        kept = ("fingerprint", "units", "edits")
        sources = [
            {
                "name": run.title,
                "verb": run.run.spec.verb,
                **{f"{name}": value for name, value in run.run.spec.model.items() if name not in kept},
                **{f"images: {name}": value for name, value in run.run.spec.images.items() if name != "fingerprint"},
                **{f"settings: {name}": value for name, value in run.run.spec.settings.items() if value},
                "units": len(run.run.anatomy) or "unknown",
                "ended": run.date,
            }
            for run in self.runs
        ]
        names = dict.fromkeys(name for source in sources for name in source)
        rows = [_fact(name, [cut(format_value(source.get(name, ""))) for source in sources]) for name in names]
        return tuple(row for row in rows if row.differs or not row.name.startswith("settings"))

    @cached_property
    def numbers(self) -> tuple[ComparedRow, ...]:
        """The headline numbers of each run, with their errors."""
        return tuple(
            ComparedRow(first.label, tuple(with_unit(with_error(*one), first.unit) if one else "" for one in values))
            for first, values in self._headlines
        )

    @cached_property
    def differences(self) -> tuple[ComparedRow, ...]:
        """The headline numbers as differences from the first run."""
        return tuple(
            ComparedRow(
                first.label,
                tuple(format_difference(*one) for one in _differences(values, self.pairings.errors(first.address))),
            )
            for first, values in self._headlines
        )

    @cached_property
    def _headlines(self) -> tuple[tuple[MeasuredQuantity, list[tuple[float, float] | None]], ...]:
        found = [{(one.diagnostic, one.name): one for _, one in run.headlines} for run in self.runs]
        keys = dict.fromkeys(key for one in found for key in one)
        rows: list[tuple[MeasuredQuantity, list[tuple[float, float] | None]]] = []
        for key in keys:
            first = next(one[key] for one in found if key in one)
            values = [(one[key].mean.item(), one[key].error.item()) if key in one else None for one in found]
            rows.append((first, values))
        return tuple(rows)

    @cached_property
    def diagnostics(self) -> tuple[DiagnosticView, ...]:
        """The diagnostics that at least two runs have."""
        names = dict.fromkeys(name for side in self.sides for name in side.run.measured)
        shared = [name for name in names if sum(name in side.run for side in self.sides) > 1]
        found = (self._diagnostic(name) for name in shared)
        return tuple(one for one in found if one.main)

    @property
    def questions(self) -> tuple[tuple[str, tuple[DiagnosticView, ...]], ...]:
        """The diagnostics by question."""
        asked = order_questions(one.question for one in self.diagnostics)
        return tuple((question, tuple(d for d in self.diagnostics if d.question == question)) for question in asked)

    @cached_property
    def findings(self) -> tuple[tuple[str, tuple[Claim | None, ...]], ...]:
        """Each statement with every run's claim; statements on which the runs disagree come first."""
        claims = [{claim.name: claim for claim in side.run.claims} for side in self.sides]
        names = dict.fromkeys(name for one in claims for name in one)
        rows = [(name, tuple(one.get(name) for one in claims)) for name in names]
        rows.sort(key=lambda row: (-len({c.verdict for c in row[1] if c}), -max(c.weight for c in row[1] if c)))
        return tuple((next(c.statement for c in row if c), row) for _, row in rows)

    @cached_property
    def alone(self) -> tuple[tuple[str, str], ...]:
        """Diagnostics that only some runs have, with the runs that lack them and why."""
        names = dict.fromkeys(name for side in self.sides for name in (*side.run.measured, *side.run.skipped))
        found: list[tuple[str, str]] = []
        for name in names:
            lacking = [side for side in self.sides if name not in side.run]
            if lacking:
                why = [_lack(side, name) for side in lacking]
                found.append((name, "; ".join(dict.fromkeys(why))))
        return tuple(found)

    def anchor(self, *names: str) -> str:
        """An id on this page."""
        return "-".join((_PREFIX, *(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() for name in names)))

    def _diagnostic(self, name: str) -> DiagnosticView:
        dataset = join_runs(self.sides, name, self.exact)
        quantities = quantities_of(name, dataset)
        figures = figure_views(drawings(quantities, self.strip), self.anchor)
        return DiagnosticView(
            id=self.anchor(name),
            name=name,
            title=str(dataset.attrs.get("title", name)),
            question=str(dataset.attrs.get("question", "Other measurements")),
            numbers=(),
            intact=None,
            main=tuple(figures[:1]),
            more=tuple(figures[1:]),
            tables=difference_tables(self.sides, quantities, self.pairings.errors) if quantities else (),
            definition=definition(str(dataset.attrs.get("definition", ""))) if figures else Markup(""),
            references=as_texts(dataset.attrs.get("references", ())),
        )


def _differences(
    values: Sequence[tuple[float, float] | None], paired: Sequence[float | None]
) -> list[tuple[float, float]]:
    means, errors = zip(*(one or (np.nan, np.nan) for one in values), strict=True)
    return differences(means, errors, paired)


def _fact(name: str, cells: list[str]) -> ComparedRow:
    return ComparedRow(name, tuple(cells), len(set(cells)) > 1 and name != "ended")


def _lack(side: Side, name: str) -> str:
    reason = side.run.skipped.get(name)
    return f"not in {side.label}" + (f": {reason}" if reason else "")


def _spread(one: Strip, units: int) -> tuple[tuple[float, float, Cell], ...]:
    """The cells from stem to last unit on the axis of relative depth, each half a unit to either side of its place."""
    low, high = DEPTH_RANGE
    ends = (np.clip((np.arange(units + 2) - 0.5) / units, low, high) - low) / (high - low) * 100
    return tuple((float(ends[i]), float(ends[i + 1] - ends[i]), cell) for i, cell in enumerate(one.cells[:-1]))
