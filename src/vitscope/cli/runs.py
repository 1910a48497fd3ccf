"""``vitscope runs``: the finished runs below a folder."""

import os
from typing import Annotated

import typer
from rich.text import Text

from vitscope.cli.summary import accuracy_of
from vitscope.cli.terminal import columns, hint, stdout, waiting
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable


def runs(folder: Annotated[str, typer.Argument(help="Folder or fsspec URL.")] = "checkups") -> None:
    """List the finished runs below a folder."""
    if "://" not in folder and not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}; vitscope checkup saves runs in checkups/ by default.")
    from vitscope.runs.store import list_runs

    table = columns("run", "model", "images", "n", "top-1", "ended (UTC)", right=("n", "top-1"),
                    fold=("run", "model", "images"))  # fmt: skip
    unreadable: list[str] = []
    with waiting("Reading"):
        for path, run in list_runs(folder):
            shown = printable(os.path.relpath(path) if "://" not in folder else path)
            if isinstance(run, UserError):
                unreadable.append(str(run))
                table.add_row(Text(shown), "unreadable", "", "", "", "")
                continue
            ended = str(run.provenance.get("ended", ""))[:16].replace("T", " ")
            said = (run.spec.model.get("name", ""), run.spec.images.get("name", ""), run.tree.attrs.get("images", ""))
            cells = (shown, *(printable(str(one)) for one in said), accuracy_of(run) or "", ended)
            table.add_row(*map(Text, cells))
    if table.row_count == 0:
        stdout().print(f"There is no finished run below {printable(folder)}.", markup=False, highlight=False)
        return
    stdout().print(table, highlight=False)
    for text in unreadable:
        hint(text)
