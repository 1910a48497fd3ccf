"""``vitscope runs``: the finished runs below a folder."""

import os
from typing import Annotated

import typer

from vitscope.cli.summary import accuracy_of
from vitscope.cli.terminal import columns, stdout, waiting
from vitscope.measurement.errors import UserError


def runs(folder: Annotated[str, typer.Argument(help="Folder or fsspec URL.")] = "checkups") -> None:
    """List the finished runs below a folder."""
    from vitscope.runs.store import find_runs

    if "://" not in folder and not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}; vitscope checkup makes runs in checkups/ unless told otherwise.")
    table = columns("run", "model", "images", "n", "top-1", "ended (UTC)", right=("n", "top-1"),
                    fold=("run", "model", "images"))  # fmt: skip
    with waiting("Reading"):
        for path, run in find_runs(folder):
            spec, ended = run.spec, str(run.provenance["ended"])[:16].replace("T", " ")
            shown = os.path.relpath(path) if "://" not in folder else path
            cells = (str(spec.model["name"]), str(spec.images["name"]), str(run.tree.attrs["images"]))
            table.add_row(shown, *cells, accuracy_of(run) or "", ended)
    if table.row_count == 0:
        stdout().print(f"No finished run is below {folder}.", markup=False, highlight=False)
        return
    stdout().print(table, highlight=False)
