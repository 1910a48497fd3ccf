"""Runs of convex heads in a few lines, as the terminal shows them."""

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from vitscope.cli.summary import finding
from vitscope.cli.terminal import columns, facts, stdout
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    import xarray as xr

    from vitscope.runs.run import Run

_PATH = ("convex-path", "convex-path-rank", "convex-path-certificate")


def print_fit(run: "Run", saved: str, page: str) -> None:
    """Print accuracy, certificate, rank, and where head and page are."""
    found = run.tree["convex-head"].to_dataset()
    asked = run.spec.settings["head"]
    table = _subject_table(run)
    table.add_row("head", f"{asked['kind']}, {asked['activation']}, beta {_value(found, 'penalty'):.3g}")  # pyright: ignore
    table.add_row("accuracy", f"{_percent(found['top1'], found['top1_error'])} on test images")
    table.add_row("", f"{_percent(found['training_top1'], found['training_top1_error'])} on training images")
    bound = _value(found, "lower_bound")
    table.add_row("objective", f"{_value(found, 'objective'):.6g} nats; no head is below {bound:.6g}")
    table.add_row("gap", _gap(found))
    table.add_row("rank", f"{_value(found, 'heads'):.0f} heads")
    table.add_row("time", f"{_value(found, 'fit_seconds'):.1f} s")
    _end(table, run, page, saved)
    stdout().print(table, highlight=False)


def print_path(run: "Run", page: str) -> None:
    """Print a line for each point of the path."""
    import xarray as xr

    found = xr.merge([run.tree[name].to_dataset() for name in _PATH], combine_attrs="override")
    table = columns(
        "beta / largest", "test top-1", "training top-1", "heads", "effective rank", "gap", right=("heads",)
    )
    for i, beta in enumerate(found["beta"].values):
        point = found.isel(beta=i)
        table.add_row(
            f"{beta:.4g}",
            _percent(point["top1"], point["top1_error"]),
            _percent(point["training_top1"], point["training_top1_error"]),
            f"{_value(point, 'heads'):.0f}",
            f"{_value(point, 'effective_rank'):.1f}",
            _gap(point),
        )
    about = _subject_table(run)
    about.add_row("largest", f"beta {_value(found, 'largest_penalty'):.4g} leaves no head")
    _end(about, run, page)
    stdout().print(table, highlight=False)
    stdout().print(about, highlight=False)


def print_comparison(run: "Run", page: str) -> None:
    """Print a line for each kind of head."""
    found = run.tree["convex-comparison"].to_dataset()
    table = columns("head", "test top-1", "beta", "rank", "weights", "gap", "time", right=("rank", "weights", "time"))
    for i, kind in enumerate(found["head_kind"].values):
        one = found.isel(head_kind=i)
        table.add_row(
            str(kind),
            _percent(one["top1"], one["top1_error"]),
            f"{_value(one, 'penalty'):.3g}",
            f"{_value(one, 'heads'):.0f}",
            f"{_value(one, 'weights'):,.0f}",
            _gap(one),
            f"{_value(one, 'fit_seconds'):.1f} s",
        )
    about = _subject_table(run)
    _end(about, run, page)
    stdout().print(table, highlight=False)
    stdout().print(about, highlight=False)


def _subject_table(run: "Run") -> Table:
    """A table of model, images and tokens."""
    table, spec = facts(), run.spec
    tokens, test = spec.settings["tokens"], spec.settings["test images"]
    table.add_row("model", f"{spec.model['name']}, {spec.model['weights']}")
    tested = f"{test['count']:,} of {test['name']}"  # pyright: ignore
    table.add_row("images", f"{spec.images['count']:,} of {spec.images['name']}, tested on {tested}")
    width = tokens["width"] or "all"  # pyright: ignore
    table.add_row("tokens", f"{tokens['tokens']} an image, {width} entries each")  # pyright: ignore
    return table


def _end(table: Table, run: "Run", page: str, saved: str = "") -> None:
    """Add findings, notes, and where head and page are."""
    for number, claim in enumerate(run.claims):
        table.add_row("findings" if number == 0 else "", finding(claim))
    for note in run.notes[:3]:
        table.add_row("note", note)
    if saved:
        table.add_row("saved", saved)
    table.add_row("page", Text(printable(page), style="bold"))


def _value(dataset: "xr.Dataset", name: str) -> float:
    return float(dataset[name])


def _percent(mean: "xr.DataArray", error: "xr.DataArray") -> str:
    return f"{100 * float(mean):.1f} ± {100 * float(error):.1f} %"


def _gap(dataset: "xr.Dataset") -> str:
    gap = _value(dataset, "relative_gap")
    return f"{gap:.2g} %" if np.isfinite(gap) else "not bounded"
