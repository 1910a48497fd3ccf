"""A bench on the terminal: one line per contestant and batch size, then the findings and the page."""

from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from vitscope.cli.summary import ADVISED, finding
from vitscope.cli.terminal import columns, facts, stdout
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    import xarray as xr

    from vitscope.runs.run import Run

SHOWN = 6
"""Findings below the table; the page has them all."""
_RIGHT = ("batch", "ms", "95 %", "p90", "of the first", "images/s", "MB")


def print_bench(run: "Run", page: str) -> None:
    """Print times with intervals, ratios, memory, operations, weights and findings."""
    console = stdout()
    console.print(_table(run), highlight=False)
    told = facts()
    for name, text in _costs(run):
        told.add_row(name, text)
    for name, reason in run.skipped.items():
        told.add_row("left out", f"{name}: {reason}")
    claims = [claim for claim in run.claims if claim.mark in ADVISED or claim.mark == "good"]
    for number, claim in enumerate(claims[:SHOWN]):
        told.add_row("findings" if number == 0 else "", finding(claim))
    if more := len(claims[SHOWN:]):
        told.add_row("", Text(f"{more} more on the page", style="dim"))
    for note in run.notes:
        told.add_row("note", note)
    told.add_row("page", Text(printable(page), style="bold"))
    console.print(told, highlight=False)


def _table(run: "Run"):  # noqa: ANN202 - a table of rich's
    times = run.tree["timing"].to_dataset()
    ratios = run.tree["time-ratio"].to_dataset() if "time-ratio" in run else None
    memory = run.tree["memory"].to_dataset() if "memory" in run else None
    rows: list[tuple[str, ...]] = []
    for batch in times["batch_size"].values.tolist():
        for model in times["model"].values.tolist():
            for backend in times["backend"].values.tolist():
                at = {"model": model, "backend": backend, "batch_size": batch}
                if np.isfinite(float(times["time"].sel(at))):
                    figures = (*_times(times, at), _ratio(ratios, at), *_rest(times, memory, at))
                    rows.append((model, backend, str(batch), *figures))
    names = ("model", "backend", *_RIGHT)
    kept = [place for place in range(len(names)) if any(row[place] for row in rows)]
    table = columns(*(names[place] for place in kept), right=_RIGHT, fold=("model",))
    for row in rows:
        table.add_row(*(row[place] for place in kept))
    return table


def _times(times: "xr.Dataset", at: dict[str, object]) -> tuple[str, str, str]:
    median, low, high, p90 = (
        f"{float(times[name].sel(at)):.4g}" for name in ("time", "time_low", "time_high", "time_p90")
    )
    return median, f"{low} to {high}", p90


def _ratio(ratios: "xr.Dataset | None", at: dict[str, object]) -> str:
    if ratios is None:
        return ""
    found, low, high = (float(ratios[name].sel(at)) for name in ("time_ratio", "time_ratio_low", "time_ratio_high"))
    if not np.isfinite(found):
        return ""
    if low == high == 1:
        return "1"
    return f"{found:.3g} ({low:.3g} to {high:.3g})" if np.isfinite(low) else f"{found:.3g}"


def _rest(times: "xr.Dataset", memory: "xr.Dataset | None", at: dict[str, object]) -> tuple[str, str]:
    peak = np.nan if memory is None else float(memory["peak_memory"].sel(at))
    return f"{float(times['throughput'].sel(at)):,.4g}", f"{peak:.3g}" if np.isfinite(peak) else ""


def _costs(run: "Run") -> list[tuple[str, str]]:
    """Multiply-adds and weights of each model."""
    found = run.tree["operations"].to_dataset()
    told: list[str] = []
    for model in found["model"].values.tolist():
        adds = float(found["multiply_adds"].sel(model=model)) if "multiply_adds" in found else np.nan
        weights = float(found["parameters"].sel(model=model))
        parts = [f"{adds:.3g} billion multiply-adds an image"] if np.isfinite(adds) else []
        parts += [f"{weights:.4g} million weights in use"] if np.isfinite(weights) else []
        if parts:
            told.append(f"{model}: {', '.join(parts)}")
    return [("work" if number == 0 else "", text) for number, text in enumerate(told)]
