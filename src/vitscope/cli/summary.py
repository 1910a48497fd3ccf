"""The run in a few lines: what the terminal shows when a checkup is done."""

from typing import TYPE_CHECKING

from rich.text import Text

from vitscope.cli.settings import LINES, print_settings
from vitscope.cli.terminal import MARK_COLOURS, facts, stdout
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    from vitscope.measurement.claim import Claim
    from vitscope.runs.run import Run

SHOWN = 3
"""Findings in the summary; the page has them all."""
WEAKEST = 3
"""Classes in the summary, those that the model errs on most."""
ADVISED = ("problem", "look at this", "undecided")
"""Marks of claims whose advice is shown."""


def print_summary(run: "Run", page: str) -> None:
    """Print what was examined, the accuracy, the weightiest findings, and where the page is."""
    table = facts()
    for name, text in _subject_lines(run):
        table.add_row(name, text)
    if accuracy := accuracy_of(run):
        table.add_row("accuracy", accuracy)
    if weakest := weakest_of(run):
        table.add_row("weakest", weakest)
    for name, reason in run.skipped.items():
        table.add_row("left out", f"{name}: {reason}")
    shown = SHOWN if _has_model(run) else LINES  # a lab is run for its verdicts
    for number, claim in enumerate(run.claims[:shown]):
        table.add_row("findings" if number == 0 else "", finding(claim))
    if more := len(run.claims[shown:]):
        table.add_row("", Text(f"{more} more on the page", style="dim"))
    for note in run.notes[:SHOWN]:
        table.add_row("note", note)
    table.add_row("page", Text(printable(page), style="bold"))
    console = stdout()
    print_settings(run)
    console.print(table, highlight=False)


def _subject_lines(run: "Run") -> tuple[tuple[str, str], ...]:
    """The model and the images; without a model, what was run and how much of it."""
    model, images, count = run.spec.model, run.spec.images, run.tree.attrs["images"]
    if not _has_model(run):
        return (run.spec.verb, str(model["name"])), (str(images["of"]), f"{count:,}")
    return (
        ("model", f"{model['name']}, {model['parameters']:,} parameters, {model['weights']}"),
        ("images", f"{count} of {images['name']}, labels: {images['labels']}"),
    )


def _has_model(run: "Run") -> bool:
    return "parameters" in run.spec.model


def accuracy_of(run: "Run") -> str | None:
    """Top-1 accuracy with its standard error; None if it was not measured."""
    return run.accuracy


def weakest_of(run: "Run") -> str | None:
    """The classes that the model errs on most, and the most frequent confusion; None without labels or mistakes."""
    from vitscope.report.mistakes import mistakes_of

    found = mistakes_of(run)
    if found is None or not found.weakest:
        return None
    said = [f"{one.name} {one.share:.0%} of {one.count} right" for one in found.weakest[:WEAKEST]]
    pairs = [f"{one.true} taken for {one.predicted} {one.count} x" for one in found.confusions[:1] if one.count > 1]
    return "; ".join((", ".join(said), *pairs))


def finding(claim: "Claim") -> Text:
    """A claim's mark, its sentence, the figure and, if it can be acted on, what to try."""
    mark = (f"{claim.mark}: ", MARK_COLOURS.get(claim.mark, ""))
    tried = f"{claim.advice.replace('`', '')}\n" if claim.mark in ADVISED else ""
    return Text.assemble(mark, claim.sentence, (f"\n{claim.figure}\n", "dim"), tried, overflow="fold")
