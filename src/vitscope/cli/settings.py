"""A study's results on the terminal: a line for each setting, or a grid of settings along two axes."""

from typing import TYPE_CHECKING

import numpy as np

from vitscope.cli.terminal import columns, stdout

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from vitscope.runs.run import Run

LINES = 48
"""Most settings shown along an axis; the page has all."""
_GAP = 2


def print_settings(run: "Run") -> None:
    """Print the headline of each study in the run, if it has one axis or two and fits the terminal."""
    console = stdout()
    for dataset in run.measured.values():
        name = str(dataset.attrs.get("headline") or next(iter(dataset.data_vars)))
        if f"{name}_change" in dataset and max(dataset[name].shape, default=LINES + 1) <= LINES:
            if dataset[name].ndim == 1:
                _print_lines(console, dataset, name)
            elif dataset[name].ndim == 2:
                _print_grid(console, dataset, name)


def _print_lines(console: "Console", dataset: "xr.Dataset", name: str) -> None:
    axis = str(dataset[name].dims[0])
    table = columns(_label(dataset, axis), str(dataset[name].attrs["long_name"]), "change from intact")
    for index, entry in enumerate(_entries(dataset, axis)):
        table.add_row(entry, _number(dataset[name][index]), _with_error(dataset, f"{name}_change", index))
    console.print(table, highlight=False)


def _print_grid(console: "Console", dataset: "xr.Dataset", name: str) -> None:
    """Print a grid of settings, the longer axis downwards."""
    down, across = sorted(map(str, dataset[name].dims), key=lambda dim: -dataset.sizes[dim])
    entries, heads = _entries(dataset, down), _entries(dataset, across)
    rows = [[_number(value) for value in row] for row in dataset[name].transpose(down, across)]
    widths = [max(map(len, (head, *cells))) for head, *cells in zip(heads, *rows, strict=True)]
    first = max(map(len, entries))
    if first + sum(width + _GAP for width in widths) > console.width - 2:
        return
    label = _label(dataset, down)
    table = columns(label, *heads, right=tuple(heads), fold=(label,), gap=_GAP)
    table.columns[0].min_width = first
    for entry, row in zip(entries, rows, strict=True):
        table.add_row(entry, *row)
    console.print(table, highlight=False)
    console.print(_beneath(dataset, name, across), style="dim", highlight=False)


def _beneath(dataset: "xr.Dataset", name: str, across: str) -> str:
    """The caption: what the numbers are, and their largest standard error."""
    said = [f"{dataset[name].attrs['long_name']}. Across: {_label(dataset, across)}"]
    intact = dataset.get(f"{name}_intact")
    if intact is not None and not intact.ndim:
        said.append(f"Intact: {_number(intact)}")
    errors = dataset[f"{name}_error"].values
    if np.isfinite(errors).any():
        said.append(f"Standard errors: at most {float(np.nanmax(errors)):.4f}")
    return f"{'. '.join(said)}.\n"


def _label(dataset: "xr.Dataset", axis: str) -> str:
    return str(dataset[axis].attrs.get("long_name", axis)) if axis in dataset.coords else axis.replace("_", " ")


def _entries(dataset: "xr.Dataset", axis: str) -> list[str]:
    """The settings along an axis; units by layer and name."""
    values = dataset[axis].values if axis in dataset.coords else range(dataset.sizes[axis])
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    units = dataset[f"{axis}_unit"].values if f"{axis}_unit" in dataset.coords else [""] * len(shown)
    return [f"{value} {unit}".rstrip() for value, unit in zip(shown, units, strict=True)]


def _with_error(dataset: "xr.Dataset", name: str, index: int) -> str:
    return f"{float(dataset[name][index]):+.4f} ± {float(dataset[f'{name}_error'][index]):.4f}"


def _number(value: "xr.DataArray") -> str:
    """Four decimals; empty if nothing was done at the setting."""
    return f"{float(value):.4f}" if np.isfinite(float(value)) else ""
