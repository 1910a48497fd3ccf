"""The command line: a thin rim around the library. Nothing heavy is imported before a command needs it."""

import typer

from vitscope.cli.anatomy import anatomy
from vitscope.cli.checkup import checkup
from vitscope.cli.compare import compare
from vitscope.cli.entry import list_entries
from vitscope.cli.head import head
from vitscope.cli.lab import lab, sweep
from vitscope.cli.measure import Diagnostics
from vitscope.cli.report import report
from vitscope.cli.rim import Rim
from vitscope.cli.runs import runs
from vitscope.cli.show import show
from vitscope.cli.study import Studies
from vitscope.cli.threads import wait_passively
from vitscope.cli.train import train

app = typer.Typer(
    cls=Rim,
    help="How vision transformers work, measured: a checkup of any vision model on real images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("checkup")(checkup)
for name, group, text in (
    ("study", Studies, "What changes when the model is touched: a grid of interventions."),
    ("measure", Diagnostics, "One diagnostic, with settings of its own."),
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


def main() -> None:
    """The ``vitscope`` command."""
    wait_passively()
    app(prog_name="vitscope")


__all__ = ["app", "main"]
