"""A run as the page shows it: all texts and figures, for a template that only lays them out."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import xarray as xr
from markupsafe import Markup

from vitscope.measurement.claim import Claim, ClaimKind, Verdict, sort_claims
from vitscope.report.drawing import AbstractDrawing, drawings
from vitscope.report.drawing.distribution import Distribution
from vitscope.report.drawing.drawing import MARGIN_TOP
from vitscope.report.measured import MeasuredQuantity, as_texts, quantities_of
from vitscope.report.mistakes import MistakesView, mistakes_of
from vitscope.report.number import amount
from vitscope.report.pairing import Pairing, pair_models, subjects_of
from vitscope.report.strip import Strip, strip
from vitscope.report.table import Table, tables
from vitscope.report.text import definition
from vitscope.runs.run import Run

WEIGHTIEST = 3
NO_FINDINGS = "No findings were drawn from this run; the figures speak for themselves."
THEORY = "What papers report about such models, tested on this one. None of it means that the model is good or bad."
MOST_FACTS = 8
"""More facts than these are folded, so that findings come near the top."""
_TALL, _LOW, _MULTIPLE = 272, 200, 150
"""Heights in pixels: a diagnostic's first figure, the figures folded below it, and one of several small ones."""
SHOWN_MULTIPLES = 4
"""How many of a figure's small multiples are shown; the others are folded."""
QUESTIONS = (
    "Does it smooth or sharpen?",
    "Where does it look?",
    "What does it depend on?",
    "How is its loss curved?",
    "What can it lose?",
)
"""The questions in the order of the page; others come before them, in the order of the run."""
_LONGEST_SETTING = 400
"""Most characters of a setting on the page; the run holds all of it."""
_SAID = ("name", "count", "of", "fingerprint", "units", "subjects")
"""Facts that are shown elsewhere, or mean nothing to a reader."""
_FIRST = ("family", "weights", "parameters", "input")
"""The facts that come first; the order of the spec is alphabetical."""


@dataclass(frozen=True)
class Plot:
    """One drawing, as plotly's JSON, which is safe inside a ``<script>``."""

    json: Markup
    title: str
    height: int
    top: int
    over_depth: bool
    square: bool
    how_to_read: str
    file: str


@dataclass(frozen=True)
class FigureView:
    """Drawings of the same quantities, and those quantities for the caption."""

    id: str
    quantities: tuple[MeasuredQuantity, ...]
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class DiagnosticView:
    """A diagnostic's numbers and figures; ``main`` is shown, ``more`` is folded."""

    id: str
    name: str
    title: str
    question: str
    numbers: tuple[MeasuredQuantity, ...]
    intact: MeasuredQuantity | None
    """The headline of a study's intact model, if it is a number."""
    main: tuple[FigureView, ...]
    more: tuple[FigureView, ...]
    tables: tuple[Table, ...]
    definition: Markup
    references: tuple[str, ...]

    def showing(self, quantity: str) -> FigureView | None:
        """The figure that shows a quantity."""
        figures = (*self.main, *self.more)
        return next((f for f in figures if any(quantity in (one.name, one.whole) for one in f.quantities)), None)


_GLYPHS = {ClaimKind.PROBLEM: "▲", ClaimKind.LOOK: "●", ClaimKind.GOOD: "✓", ClaimKind.THEORY: "◆"}


def tone(claim: Claim) -> str:
    """The CSS class that gives a claim its colour."""
    return "undecided" if claim.verdict is Verdict.UNDECIDED else claim.kind.name.lower()


def advice_heading(claim: Claim) -> str:
    """The heading of a claim's advice."""
    if claim.verdict is Verdict.UNDECIDED:
        return "What would decide it"
    return "What it means" if claim.kind is ClaimKind.THEORY else "What to try"


def glyph(claim: Claim) -> str:
    """The symbol of a claim's kind."""
    return "○" if claim.verdict is Verdict.UNDECIDED else _GLYPHS[claim.kind]


@dataclass(frozen=True)
class FindingView:
    """A claim with its evidence, if the run holds it; a number without axes is shown by its diagnostic's figure."""

    claim: Claim
    figure: FigureView | None
    link: str
    source: str
    drawn: bool = False
    """Whether the figure is drawn under it: only under the first of the open findings that rests on the figure."""


@dataclass(frozen=True)
class FindingGroup:
    """Findings under one heading; ``open`` are shown, ``folded`` are folded away."""

    id: str
    title: str
    lead: str
    open: tuple[FindingView, ...]
    folded: tuple[FindingView, ...]

    @property
    def rest(self) -> str:
        """How many findings are folded, and of what kinds."""
        marks = Counter(one.claim.mark for one in self.folded)
        count = f"{len(self.folded)} {'further ' if self.open else ''}finding{'s' if len(self.folded) > 1 else ''}"
        kinds = ", ".join(f"{number} {mark}" for mark, number in marks.items())
        return f"{count}: {kinds}" if self.open else count


@dataclass(frozen=True)
class RunView:
    """All that is shown of a run. ``prefix`` makes its ids unique on a page of several runs."""

    run: Run
    prefix: str

    @property
    def title(self) -> str:
        """The model's name."""
        return str(self.run.spec.model.get("name", self.run.spec.verb))

    @property
    def images(self) -> str:
        """What it was examined on: images, or what the spec's ``of`` calls its trials."""
        images = self.run.spec.images
        if "of" in images:
            return f"{amount(images.get('count', 'an unknown number of'))} {images['of']}"
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
        """Model and images in the words of the spec; also its settings if there is no model with weights."""
        spec = self.run.spec
        several = subjects_of(self.run)
        settings = {} if "fingerprint" in spec.model or several else spec.settings
        shown = sorted((*_items(spec.model), *_items(spec.images), *_items(settings)), key=_importance)
        facts = ((name.replace("_", " "), value) for name, value in shown if name not in _SAID)
        return (*several.items(), *facts)

    @cached_property
    def pairings(self) -> tuple[Pairing, ...]:
        """In a run of several models, the first compared with each of the others."""
        return pair_models(self.run)

    @cached_property
    def diagnostics(self) -> tuple[DiagnosticView, ...]:
        """The diagnostics, in the order of the run."""
        return tuple(self._diagnostic(name, dataset) for name, dataset in self.run.measured.items())

    @cached_property
    def mistakes(self) -> MistakesView | None:
        """What the model gets wrong, if that was measured."""
        return mistakes_of(self.run)

    @property
    def headlines(self) -> tuple[tuple[DiagnosticView, MeasuredQuantity], ...]:
        """The headlines without axes, with their diagnostics; if there are none, those of a study's intact model."""
        own = [(one, one.numbers[0]) for one in self.diagnostics if one.numbers]
        intact = [(one, one.intact) for one in self.diagnostics if one.intact is not None]
        return tuple({number.label: (one, number) for one, number in own or intact}.values())

    @property
    def questions(self) -> tuple[tuple[str, tuple[DiagnosticView, ...]], ...]:
        """The diagnostics by question: the project's questions in their order, after any others."""
        asked = order_questions(one.question for one in self.diagnostics)
        return tuple((question, tuple(d for d in self.diagnostics if d.question == question)) for question in asked)

    @cached_property
    def findings(self) -> tuple[FindingGroup, ...]:
        """The findings that a user can act on, then those about the theory; only the latter if there are no others."""
        claims = sort_claims(self.run.claims)
        if not claims and self.pairings:
            return ()
        about = [claim for claim in claims if claim.kind is not ClaimKind.THEORY]
        theory = [claim for claim in claims if claim.kind is ClaimKind.THEORY]
        problems, looks = (sum(claim.kind is kind for claim in claims) for kind in (ClaimKind.PROBLEM, ClaimKind.LOOK))
        opened = max(problems, min(problems + looks, WEIGHTIEST), 1) if about else WEIGHTIEST
        first = self._group("Findings", rates_of(claims) if claims else NO_FINDINGS, about or theory, opened)
        return (first, self._group("About the theory", THEORY, theory, 0)) if about and theory else (first,)

    def _group(self, title: str, lead: str, claims: Sequence[Claim], count: int) -> FindingGroup:
        """The findings, the first ``count`` of them open, with each figure drawn once."""
        found = [self._finding(claim) for claim in claims]
        first = {one.link: place for place, one in reversed(list(enumerate(found[:count]))) if one.figure}
        opened = tuple(replace(one, drawn=first.get(one.link) == place) for place, one in enumerate(found[:count]))
        return FindingGroup(self.anchor(title), title, lead, opened, tuple(found[count:]))

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """Where the numbers come from, without the command."""
        origin = {name: value for name, value in self.run.provenance.items() if name != "command"}
        fingerprints = {
            f"{part} fingerprint": str(asked.get("fingerprint", "none"))
            for part, asked in (("model", self.run.spec.model), ("images", self.run.spec.images))
        }
        given = {name: value for name, value in self.run.spec.settings.items() if value not in ({}, [], None, "")}
        settings = {f"{name} settings" if isinstance(one, Mapping) else name: one for name, one in given.items()}
        said = _items({**origin, **fingerprints, **settings})
        return (("address", self.run.spec.address), *((name.replace("_", " "), value) for name, value in said))

    @property
    def command(self) -> str:
        """The command that makes the run again; empty if it was made in Python and not recorded."""
        return str(self.run.provenance.get("command", ""))

    def anchor(self, *names: str) -> str:
        """An id for a part of this run."""
        return "-".join((self.prefix, *(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() for name in names)))

    def _diagnostic(self, name: str, dataset: xr.Dataset) -> DiagnosticView:
        quantities = quantities_of(name, dataset)
        figures = figure_views(drawings(quantities, self.strip), self.anchor)
        return DiagnosticView(
            id=self.anchor(name),
            name=name,
            title=str(dataset.attrs.get("title", name)),
            question=str(dataset.attrs.get("question", "Other measurements")),
            numbers=tuple(one for one in quantities if not one.dims and not one.is_intact),
            intact=next((one for one in quantities if not one.dims and one.is_intact), None),
            main=tuple(figures[:1]),
            more=tuple(figures[1:]),
            tables=tables(quantities),
            definition=definition(str(dataset.attrs.get("definition", ""))),
            references=as_texts(dataset.attrs.get("references", ())),
        )

    def _finding(self, claim: Claim) -> FindingView:
        name, _, quantity = claim.evidence.partition("/")
        diagnostic = next((one for one in self.diagnostics if one.name == name), None)
        if diagnostic is None:
            return FindingView(claim, None, "", claim.evidence)
        named = quantity or str(next(iter(self.run.tree[name].to_dataset().data_vars)))
        figure = diagnostic.showing(named) or next(iter(diagnostic.main), None)
        return FindingView(claim, figure, figure.id if figure else diagnostic.id, diagnostic.title)


def figure_views(
    groups: Sequence[Sequence[AbstractDrawing]], anchor: Callable[[str, str], str]
) -> tuple[FigureView, ...]:
    """The figures of a diagnostic, the one to show first; many small multiples are first only if there is no other."""
    ordered = sorted(groups, key=_readiness)
    return tuple(_figure(group, _TALL if i == 0 else _LOW, anchor) for i, group in enumerate(ordered))


def _readiness(group: Sequence[AbstractDrawing]) -> tuple[bool, bool, bool]:
    """Sort key: all values before their means, many small multiples late, those of a study's intact model last."""
    entries = {drawing.quantities[0].entry for drawing in group}
    by_rank = isinstance(group[0], Distribution)
    return group[0].quantities[0].is_intact, len(entries) > SHOWN_MULTIPLES, not by_rank


def _figure(group: Sequence[AbstractDrawing], height: int, anchor: Callable[[str, str], str]) -> FigureView:
    first = group[0].quantities[0]
    several = len({drawing.quantities[0].entry for drawing in group}) > 1
    plots = tuple(_plot(drawing, _MULTIPLE if several else height) for drawing in group)
    return FigureView(anchor(first.diagnostic, first.whole or first.name), group[0].quantities, plots)


def _plot(drawing: AbstractDrawing, height: int) -> Plot:
    shown = cast(dict[str, Any], drawing.interactive().to_plotly_json())
    top = int(shown["layout"]["margin"]["t"])
    more = 40 * (len(drawing.quantities) - 1)
    return Plot(
        json=_json(shown),
        title=drawing.quantities[0].entry,
        height=drawing.height or height - MARGIN_TOP + top + more,
        top=top,
        over_depth=drawing.over_depth,
        square=drawing.square,
        how_to_read=drawing.how_to_read,
        file=drawing.file,
    )


def rates_of(claims: Sequence[Claim]) -> str:
    """How often the tests of a run err, in words; empty if none has a rate."""
    rates = [claim.rate for claim in claims if claim.rate is not None]
    if not rates:
        return ""
    each, all_of_them = (f"{100 * rate:.2g} %" for rate in (max(rates), sum(rates)))
    if len(rates) == 1:
        return f"One of these claims is a statistical test, which is wrong in at most {each} of runs."
    return (
        f"{len(rates)} claims of this run are statistical tests. Each is wrong in at most {each} of runs, and any of "
        f"them in at most {all_of_them}; what is less certain than that is called undecided."
    )


def order_questions(questions: Iterable[str]) -> tuple[str, ...]:
    """Each question once, in the order of the page."""
    asked = dict.fromkeys(questions)
    return (*(one for one in asked if one not in QUESTIONS), *(one for one in QUESTIONS if one in asked))


def _items(mapping: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, cut(format_value(value))) for name, value in mapping.items())


def cut(text: str) -> str:
    """The text; if it is long, its beginning and a note that there is more."""
    return text if len(text) <= _LONGEST_SETTING else f"{text[:_LONGEST_SETTING]}… (the run holds all of it)"


def _importance(item: tuple[str, str]) -> int:
    return _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST)


def format_value(value: object) -> str:
    """A setting or fact as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(format_value(one) for one in cast(list[object], value))
    return f"{value:g}" if isinstance(value, float) else amount(value)


def _json(shown: dict[str, Any]) -> Markup:
    text = json.dumps(shown, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
