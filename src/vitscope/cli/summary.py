"""The run in a few lines: what the terminal shows when a checkup is done."""

from typing import TYPE_CHECKING

from rich.text import Text

from vitscope.cli.terminal import VERDICT_COLOURS, columns, facts, stdout

if TYPE_CHECKING:
    import xarray as xr

    from vitscope.measurement.claim import Claim
    from vitscope.runs.run import Run

SHOWN = 3
"""Findings in the summary; the page has them all."""
LINES = 48
"""Settings of a study that are shown as a table, at most."""


def print_summary(run: "Run", page: str) -> None:
    """What was examined, the accuracy, the weightiest findings, and where the page is."""
    table = facts()
    for name, text in _examined(run):
        table.add_row(name, text)
    if accuracy := accuracy_of(run):
        table.add_row("accuracy", accuracy)
    for name, reason in run.skipped.items():
        table.add_row("left out", f"{name}: {reason}")
    shown = SHOWN if _has_model(run) else LINES  # a lab is run for its verdicts
    for number, claim in enumerate(run.claims[:shown]):
        table.add_row("findings" if number == 0 else "", finding(claim))
    for note in run.notes[:SHOWN]:
        table.add_row("note", note)
    table.add_row("page", Text(page, style="bold"))
    console = stdout()
    for dataset in run.measured.values():
        _print_settings(dataset)
    console.print(table, highlight=False)


def _examined(run: "Run") -> tuple[tuple[str, str], ...]:
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


def _print_settings(dataset: "xr.Dataset") -> None:
    """What a study of one axis came to: a line for each setting."""
    name = str(next(iter(dataset.data_vars)))
    if f"{name}_change" not in dataset or dataset[name].ndim != 1 or dataset[name].size > LINES:
        return
    axis = str(dataset[name].dims[0])
    label = str(dataset[axis].attrs.get("long_name", axis))
    table = columns(label, str(dataset[name].attrs["long_name"]), "change from intact")
    for index, value in enumerate(dataset[axis].values):
        unit = f" {dataset[f'{axis}_unit'].values[index]}" if f"{axis}_unit" in dataset.coords else ""
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        table.add_row(f"{shown}{unit}", _number(dataset[name][index]), _with_error(dataset, f"{name}_change", index))
    stdout().print(table, highlight=False)


def _with_error(dataset: "xr.Dataset", name: str, index: int) -> str:
    return f"{float(dataset[name][index]):+.4f} ± {float(dataset[f'{name}_error'][index]):.4f}"


def _number(value: "xr.DataArray") -> str:
    return f"{float(value):.4f}"


def accuracy_of(run: "Run") -> str | None:
    """Top-1 accuracy with its standard error, where it was measured."""
    if "accuracy" not in run:
        return None
    accuracy = run.tree["accuracy"].to_dataset()
    return f"{100 * float(accuracy['top1']):.1f} ± {100 * float(accuracy['top1_error']):.1f} %"


def finding(claim: "Claim") -> Text:
    """A claim's verdict, its statement and the figure."""
    verdict = claim.verdict.value
    return Text.assemble(
        (f"{verdict}: ", VERDICT_COLOURS[verdict]), claim.statement, (f"\n{claim.figure}\n", "dim"), overflow="fold"
    )
