"""``vitscope lab`` and ``vitscope sweep``: theory labs, or grids over their settings, with their runs and pages."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
from typer.core import TyperGroup

from vitscope.cli.entry import first_sentence, plain
from vitscope.cli.flags import made, with_flags
from vitscope.cli.request import executor_of, held_run, place_of, write_page
from vitscope.cli.rim import INTERRUPTED, command_line, fail
from vitscope.cli.summary import print_summary
from vitscope.cli.terminal import ProgressBar, columns, stdout, waiting
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.labs.experiment import Experiment
    from vitscope.runs.run import Run


@dataclass(frozen=True)
class LabRequest:
    """How and where trials are carried out; each field is a flag."""

    out: str | None = None
    """Folder or fsspec URL; labs/NAME-ADDRESS if left out."""
    resume: bool = False
    """Go on where an interrupted run ended."""
    workers: str = "1"
    """Worker processes, ray://HOST:PORT, or 'ray local'."""


class LabGroup(TyperGroup):
    """The labs as commands, imported when the group is used: flags are the fields of the request and of the lab."""

    @abstractmethod
    def command(self, lab: type[Any]) -> Callable[..., None]:
        """What carries out the command of a lab; it takes flags as keywords."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - click's or typer's own
        """The names of the labs."""
        del ctx
        return list(_labs())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command of a lab; ``UserError`` for a name that is not there."""
        del ctx
        labs = _labs()
        if cmd_name not in labs:
            raise UserError(f"There is no lab named {cmd_name!r}; there are: {', '.join(labs)}.")
        command = self.command(labs[cmd_name])
        command.__doc__ = plain(cleandoc(labs[cmd_name].__doc__ or ""))
        app = typer.Typer(
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        app.command(cmd_name)(with_flags(command, LabRequest, labs[cmd_name]))
        return typer.main.get_command(app)


@final
class Labs(LabGroup):
    """One command for each registered lab."""

    def command(self, lab: type[Any]) -> Callable[..., None]:
        """Run the lab."""

        def run(**fields: object) -> None:
            from vitscope.labs.experiment import Experiment

            _show(Experiment(made(lab, fields)), made(LabRequest, fields))

        return run


@final
class Sweeps(LabGroup):
    """One command for each registered lab, with a grid over its settings."""

    def command(self, lab: type[Any]) -> Callable[..., None]:
        """Run the lab at every point of the grid."""

        def run(
            grid: Annotated[
                list[str],
                typer.Option(help="Settings and their values: noise=0.1,0.2. Several may follow one another."),
            ],
            more: Annotated[list[str] | None, typer.Argument(metavar="[FIELD=VALUES]...", show_default=False)] = None,
            **fields: object,
        ) -> None:
            from vitscope.labs.experiment import grid_of

            _show(grid_of(made(lab, fields), _texts([*grid, *(more or ())])), made(LabRequest, fields))

        return run


def list_labs() -> None:
    """List the labs."""
    with waiting("Loading"):
        labs = _labs()
    table = columns("name", "what it asks", fold=("what it asks",))
    for name, lab in labs.items():
        table.add_row(name, first_sentence(lab))
    console = stdout()
    console.print(table, highlight=False)
    console.print(
        "vitscope lab run NAME runs one; vitscope lab run NAME --help tells more.", style="dim", highlight=False
    )


def _show(experiment: "Experiment", request: LabRequest) -> None:
    """Answer, write the page, and show both in a few lines."""
    run, where = _answered(experiment, request)
    with waiting("Writing the page"):
        page = write_page(run, where)
    print_summary(run, page)


def _answered(experiment: "Experiment", request: LabRequest) -> "tuple[Run, str]":
    """The run, kept already or made now, and where it is."""
    from vitscope.engine.measure import Plan
    from vitscope.runs.store import RunFolder

    where = request.out or place_of("labs", experiment.lab.name, experiment.spec)
    held = held_run(where, experiment.spec, request.resume)
    if held is not None:
        return held, where
    executor = executor_of(request.workers)
    plan = Plan(executor=executor, folder=RunFolder(where), resume=request.resume, command=command_line())
    try:
        with ProgressBar(experiment.lab.title, experiment.trials, "trials") as progress:
            return experiment.answer(replace(plan, progress=progress)), where
    except KeyboardInterrupt:
        again = plan.command if plan.resume else f"{plan.command} --resume"
        kept = f"{experiment.kept(plan)} of {experiment.trials} trials are kept"
        fail(f"interrupted; {kept}; go on with: {again}", INTERRUPTED, "")


def _texts(given: list[str]) -> dict[str, str]:
    """The values of each field, as text."""
    texts: dict[str, str] = {}
    for one in given:
        name, equals, values = one.partition("=")
        if not equals or not values or name in texts:
            raise UserError(f"--grid takes settings and values once each, as in noise=0.1,0.2; not {one!r}.")
        texts[name.strip().replace("-", "_")] = values
    return texts


def _labs() -> Mapping[str, type[Any]]:
    from vitscope.labs.lab import all_labs

    return all_labs()


lab = typer.Typer(
    help="Theory labs: small transformers trained by the thousand and held against the theorems.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lab.command("list")(list_labs)
lab.add_typer(typer.Typer(cls=Labs, help="Run a lab.", no_args_is_help=True), name="run")
sweep = typer.Typer(cls=Sweeps, help="Run a lab over a grid of its settings.", no_args_is_help=True)
