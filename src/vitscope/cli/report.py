"""``vitscope report``: pages and figures of finished runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from vitscope.cli.paths import is_absent, near_path
from vitscope.cli.terminal import hint, stdout, waiting
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    from vitscope.runs.run import Run

FORMATS = ("html", "pdf", "png", "svg")


def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs, or their run.nc.", metavar="RUN...")],
    out: Annotated[
        str | None, typer.Option(help="The page, or a folder for it or for figures; beside the run if left out.")
    ] = None,
    format: Annotated[str, typer.Option(help="html, or pdf, png or svg for the figures of a paper.")] = "html",
) -> None:
    """Make the page of one run, or of several side by side, or their figures."""
    if format not in FORMATS:
        raise UserError(f"--format is one of {', '.join(FORMATS)}, not {format!r}{nearest(format, FORMATS)}.")
    with waiting("Drawing"):
        written = _write_report(runs, out, format)
    for path in written:
        stdout().print(printable(str(path)), markup=False, highlight=False, soft_wrap=True)


def _write_report(urls: list[str], out: str | None, format: str) -> tuple[Path, ...]:
    if out is None and (len(urls) > 1 or "://" in urls[0]):
        raise UserError("A report of several runs or of a remote one needs --out: page.html, or a folder.")
    if format != "html" and len(urls) > 1:
        raise UserError(f"--format {format} draws the figures of one run; {len(urls)} were given.")
    refuse_elsewhere(out)
    from vitscope.report import figures, report

    found = [run for _, run in read_runs(urls)]
    beside = Path(urls[0]).parent if urls[0].endswith(".nc") else Path(urls[0])
    if format == "html":
        return (report(found, page_at(out, "page.html") if out else beside / "page.html"),)
    return figures(found[0], out or beside / "figures", cast(Literal["pdf", "png", "svg"], format))


def read_runs(urls: Sequence[str], least: int = 1) -> "list[tuple[str, Run]]":
    """The finished runs and where they are; unreadable ones are reported and left out if ``least`` remain.

    ``UserError`` for one that does not exist, with similar names.
    """
    for url in urls:
        if is_absent(url):
            raise UserError(f"There is no finished run at {url!r}{near_path(url)}: the path does not exist.")
    from vitscope.runs.store import place, read_run

    found: list[tuple[str, Run]] = []
    unreadable: list[UserError] = []
    for url in urls:
        try:
            found.append((url, read_run(url)))
        except UserError as error:
            if not place(url).exists():
                raise
            unreadable.append(error)
    if unreadable and len(found) < least:
        raise unreadable[0]
    for error in unreadable:
        hint(f"Left out: {error}")
    return found


def refuse_elsewhere(out: str | None) -> None:
    """Raise ``UserError`` for a URL: pages and figures are local files."""
    if out is not None and "://" in out:
        raise UserError(f"--out is {out}, but pages and figures are written on this machine; give a path.")


def page_at(out: str, name: str) -> Path:
    """The file that ``--out`` names: ``name`` in a folder, or the file itself."""
    return Path(out, name) if os.path.isdir(out) or out.endswith(("/", os.sep)) else Path(out)
