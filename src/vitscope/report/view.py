"""A run as the page shows it: every text and figure decided, for a template that only sets them out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import xarray as xr
from markupsafe import Markup

from vitscope.measurement.claim import Claim
from vitscope.report.drawing import AbstractDrawing, drawings
from vitscope.report.drawing.drawing import MARGIN_TOP
from vitscope.report.measured import Measured, measured
from vitscope.report.number import amount
from vitscope.report.strip import Strip, strip
from vitscope.report.table import Table, tables
from vitscope.report.text import definition
from vitscope.runs.run import Run

WEIGHTIEST = 3
_TALL, _LOW = 272, 200
"""Pixels: of a diagnostic's first figure, and of those folded away below it."""
_FIRST = ("family", "weights", "parameters", "input")
"""The order of the facts; the spec's own is alphabetical."""


@dataclass(frozen=True)
class Plot:
    """One drawing, as JSON for plotly that is safe inside a ``<script>``."""

    json: Markup
    height: int
    top: int
    over_depth: bool
    how_to_read: str
    file: str


@dataclass(frozen=True)
class FigureView:
    """Drawings of the same quantities, and those quantities for the words beside them."""

    id: str
    quantities: tuple[Measured, ...]
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class DiagnosticView:
    """A diagnostic's numbers and figures; ``main`` is shown, ``more`` is folded."""

    id: str
    name: str
    title: str
    question: str
    numbers: tuple[Measured, ...]
    main: tuple[FigureView, ...]
    more: tuple[FigureView, ...]
    tables: tuple[Table, ...]
    definition: Markup
    references: tuple[str, ...]

    def showing(self, quantity: str) -> FigureView | None:
        """The figure that shows a quantity."""
        figures = (*self.main, *self.more)
        return next((f for f in figures if any(one.name == quantity for one in f.quantities)), None)


@dataclass(frozen=True)
class FindingView:
    """A claim with its evidence, as far as the run holds it; a plain number is shown by its diagnostic's figure."""

    claim: Claim
    figure: FigureView | None
    link: str
    source: str


@dataclass(frozen=True)
class RunView:
    """All that is shown of a run. ``prefix`` keeps the ids of several runs on one page apart."""

    run: Run
    prefix: str

    @property
    def title(self) -> str:
        """The model's name."""
        return str(self.run.spec.model.get("name", self.run.spec.verb))

    @property
    def images(self) -> str:
        """On what it was examined."""
        images = self.run.spec.images
        return (
            f"{amount(images.get('count', 'an unknown number of'))} images of {images.get('name', 'an unnamed source')}"
        )

    @property
    def date(self) -> str:
        """When the run ended."""
        return str(self.run.provenance.get("ended", "")).replace("T", " ").replace("+00:00", " UTC")

    @cached_property
    def strip(self) -> Strip:
        """The model's anatomy."""
        return strip(self.run.anatomy)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Model and images in the words of the spec."""
        shown = sorted((*_items(self.run.spec.model), *_items(self.run.spec.images)), key=_importance)
        return tuple((name, value) for name, value in shown if name not in ("name", "count", "fingerprint"))

    @cached_property
    def diagnostics(self) -> tuple[DiagnosticView, ...]:
        """In the order of the run."""
        return tuple(self._diagnostic(name, node.to_dataset()) for name, node in self.run.tree.children.items())

    @property
    def headlines(self) -> tuple[tuple[DiagnosticView, Measured], ...]:
        """The diagnostics whose headline is a plain number."""
        return tuple((one, one.numbers[0]) for one in self.diagnostics if one.numbers)

    @property
    def questions(self) -> tuple[tuple[str, tuple[DiagnosticView, ...]], ...]:
        """The diagnostics by question, in order of first appearance."""
        asked = dict.fromkeys(one.question for one in self.diagnostics)
        return tuple((question, tuple(d for d in self.diagnostics if d.question == question)) for question in asked)

    @cached_property
    def findings(self) -> tuple[FindingView, ...]:
        """Weightiest first."""
        return tuple(self._finding(claim) for claim in sorted(self.run.claims, key=lambda claim: -claim.weight))

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """Where the numbers come from, but for the command."""
        origin = {name: value for name, value in self.run.provenance.items() if name != "command"}
        fingerprints = {
            f"{part} fingerprint": str(asked.get("fingerprint", "none"))
            for part, asked in (("model", self.run.spec.model), ("images", self.run.spec.images))
        }
        settings = {f"{name} settings": value for name, value in self.run.spec.settings.items() if value}
        return (("address", self.run.spec.address), *_items({**origin, **fingerprints, **settings}))

    @property
    def command(self) -> str:
        """What makes the run again; empty where it was made in Python and not recorded."""
        return str(self.run.provenance.get("command", ""))

    def anchor(self, *names: str) -> str:
        """An id for a part of this run."""
        return "-".join((self.prefix, *(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() for name in names)))

    def _diagnostic(self, name: str, dataset: xr.Dataset) -> DiagnosticView:
        quantities = measured(name, dataset)
        groups = drawings(quantities, self.strip)
        figures = [self._figure(group, _TALL if i == 0 else _LOW) for i, group in enumerate(groups)]
        return DiagnosticView(
            id=self.anchor(name),
            name=name,
            title=str(dataset.attrs.get("title", name)),
            question=str(dataset.attrs.get("question", "Other measurements")),
            numbers=tuple(quantity for quantity in quantities if not quantity.dims),
            main=tuple(figures[:1]),
            more=tuple(figures[1:]),
            tables=tables(quantities),
            definition=definition(str(dataset.attrs.get("definition", ""))),
            references=_several(dataset.attrs.get("references", ())),
        )

    def _figure(self, group: Sequence[AbstractDrawing], height: int) -> FigureView:
        first = group[0].quantities[0]
        plots = tuple(_plot(drawing, height) for drawing in group)
        return FigureView(self.anchor(first.diagnostic, first.name), group[0].quantities, plots)

    def _finding(self, claim: Claim) -> FindingView:
        name, _, quantity = claim.evidence.partition("/")
        diagnostic = next((one for one in self.diagnostics if one.name == name), None)
        if diagnostic is None:
            return FindingView(claim, None, "", claim.evidence)
        named = quantity or str(next(iter(self.run.tree[name].to_dataset().data_vars)))
        figure = diagnostic.showing(named) or next(iter(diagnostic.main), None)
        return FindingView(claim, figure, figure.id if figure else diagnostic.id, diagnostic.title)


def _plot(drawing: AbstractDrawing, height: int) -> Plot:
    shown = cast(dict[str, Any], drawing.interactive().to_plotly_json())
    top = int(shown["layout"]["margin"]["t"])
    more = 40 * (len(drawing.quantities) - 1)
    return Plot(
        json=_json(shown),
        height=height - MARGIN_TOP + top + more,
        top=top,
        over_depth=drawing.over_depth,
        how_to_read=drawing.how_to_read,
        file=drawing.file,
    )


def _items(mapping: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _words(value)) for name, value in mapping.items())


def _importance(item: tuple[str, str]) -> int:
    return _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else amount(value)


def _several(references: object) -> tuple[str, ...]:
    """The file gives a list of one back as its only entry."""
    if isinstance(references, str):
        return (references,)
    return tuple(map(str, references)) if isinstance(references, Sequence) else tuple(map(str, list(references)))  # pyright: ignore


def _json(shown: dict[str, Any]) -> Markup:
    text = json.dumps(shown, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
