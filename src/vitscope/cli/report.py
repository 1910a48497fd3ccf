"""``vitscope report``: pages and figures of finished runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from vitscope.cli.terminal import stdout, waiting
from vitscope.measurement.errors import UserError

FIGURES: Mapping[str, Literal["png", "svg"]] = {"png": "png", "svg": "svg"}


def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs, or their run.nc.", metavar="RUN...")],
    out: Annotated[
        str | None, typer.Option(help="page.html, or a folder for figures; beside the run if left out.")
    ] = None,
    format: Annotated[str, typer.Option(help="html, or png or svg for the figures of a paper.")] = "html",
) -> None:
    """Make the page of one run, or of several side by side, or their figures."""
    if format != "html" and format not in FIGURES:
        raise UserError(f"--format is one of html, {', '.join(FIGURES)}, not {format!r}.")
    with waiting("Drawing"):
        written = _written(runs, out, format)
    for path in written:
        stdout().print(str(path), markup=False, highlight=False, soft_wrap=True)


def _written(urls: list[str], out: str | None, format: str) -> tuple[Path, ...]:
    from vitscope.report import figures, report
    from vitscope.runs.store import read_run

    found = [read_run(url) for url in urls]
    if out is None and (len(urls) > 1 or "://" in urls[0]):
        raise UserError("Say where the report of several or of remote runs goes: --out page.html, or a folder.")
    beside = Path(urls[0]).parent if urls[0].endswith("run.nc") else Path(urls[0])
    if format == "html":
        return (report(found, Path(out) if out else beside / "page.html"),)
    if len(found) > 1:
        raise UserError(f"--format {format} draws the figures of one run; {len(found)} were given.")
    return figures(found[0], Path(out) if out else beside / "figures", FIGURES[format])
