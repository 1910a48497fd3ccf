"""``vitscope compare``: several finished runs on one page."""

from typing import Annotated

import typer

from vitscope.cli.terminal import stdout, waiting
from vitscope.measurement.errors import UserError


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of finished runs, or their run.nc, 2 to 12.", metavar="RUN RUN...")
    ],
    out: Annotated[str, typer.Option(help="The page to write.")] = "compare.html",
) -> None:
    """Compare runs side by side on one page: models, or the checkpoints of one.

    In the order given; differences are from the first run. Depth is aligned unit by unit where all models have the
    same units, by relative depth otherwise.
    """
    if len(runs) < 2:
        raise UserError(f"A comparison takes two runs at least; only {runs[0]} was given.")
    with waiting("Drawing"):
        from vitscope.report import compare
        from vitscope.runs.store import read_run

        path = compare([read_run(url) for url in runs], out)
    stdout().print(str(path), markup=False, highlight=False, soft_wrap=True)
