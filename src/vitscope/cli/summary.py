"""The run in a few lines: what the terminal shows when a checkup is done."""

from typing import TYPE_CHECKING

from rich.text import Text

from vitscope.cli.terminal import VERDICT_COLOURS, facts, stdout

if TYPE_CHECKING:
    from vitscope.measurement.claim import Claim
    from vitscope.runs.run import Run

SHOWN = 3
"""Findings in the summary; the page has them all."""


def print_summary(run: "Run", page: str) -> None:
    """The model, the images, the accuracy, the weightiest findings, and where the page is."""
    spec = run.spec
    table = facts()
    table.add_row("model", f"{spec.model['name']}, {spec.model['parameters']:,} parameters, {spec.model['weights']}")
    table.add_row("images", f"{run.tree.attrs['images']} of {spec.images['name']}, labels: {spec.images['labels']}")
    if accuracy := accuracy_of(run):
        table.add_row("accuracy", accuracy)
    for name, reason in run.skipped.items():
        table.add_row("left out", f"{name}: {reason}")
    for number, claim in enumerate(run.claims[:SHOWN]):
        table.add_row("findings" if number == 0 else "", _finding(claim))
    for note in run.notes[:SHOWN]:
        table.add_row("note", note)
    table.add_row("page", Text(page, style="bold"))
    console = stdout()
    console.print(table, highlight=False)


def accuracy_of(run: "Run") -> str | None:
    """Top-1 accuracy with its standard error, where it was measured."""
    if "accuracy" not in run:
        return None
    accuracy = run.tree["accuracy"].to_dataset()
    return f"{100 * float(accuracy['top1']):.1f} ± {100 * float(accuracy['top1_error']):.1f} %"


def _finding(claim: "Claim") -> Text:
    verdict = claim.verdict.value
    return Text.assemble(
        (f"{verdict}: ", VERDICT_COLOURS[verdict]), claim.statement, (f"\n{claim.figure}\n", "dim"), overflow="fold"
    )
