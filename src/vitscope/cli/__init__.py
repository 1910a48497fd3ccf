"""The command line: a thin layer around the library. Nothing heavy is imported before a command needs it."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import vitscope
from vitscope.cli.anatomy import anatomy
from vitscope.cli.bench import bench
from vitscope.cli.checkup import checkup
from vitscope.cli.compare import compare
from vitscope.cli.error_reporting import ErrorReportingGroup
from vitscope.cli.export import export
from vitscope.cli.head import head
from vitscope.cli.improve import improve
from vitscope.cli.lab import lab, sweep
from vitscope.cli.measure import Diagnostics
from vitscope.cli.report import report
from vitscope.cli.runs import runs
from vitscope.cli.show import list_entries, show
from vitscope.cli.study import Studies
from vitscope.cli.terminal import stdout
from vitscope.cli.threads import wait_passively
from vitscope.cli.train import train

app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> bool:
    """Print the version and exit."""
    if asked:
        stdout().print(f"vitscope {vitscope.__version__}", highlight=False)
        raise typer.Exit
    return asked


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """How vision transformers work, measured: a checkup of any vision model on real images."""


app.command("checkup")(checkup)
for name, group, text in (
    ("study", Studies, "What changes when the model is altered: a grid of interventions."),
    ("measure", Diagnostics, "One diagnostic, with its own settings."),
):
    app.add_typer(typer.Typer(cls=group, help=text, no_args_is_help=True), name=name)
app.add_typer(head, name="head")
app.add_typer(lab, name="lab")
app.add_typer(sweep, name="sweep")
app.command("list")(list_entries)
app.command("show")(show)
app.command("anatomy")(anatomy)
app.command("train")(train)
app.command("runs")(runs)
app.command("report")(report)
app.command("compare")(compare)
app.command("bench")(bench)
app.command("improve")(improve)
app.command("export")(export)


def main() -> None:
    """The ``vitscope`` command."""
    wait_passively()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal's small character set must not lose a run
    app(prog_name="vitscope")


__all__ = ["app", "main"]
