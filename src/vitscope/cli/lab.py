"""``vitscope lab`` and ``vitscope sweep``: theory labs, or grids over their settings, with their runs and pages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, final

import typer

from vitscope.cli.entry import Entry
from vitscope.cli.error_reporting import Commands, command_line
from vitscope.cli.flags import make_settings
from vitscope.cli.index import entries
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import answer
from vitscope.cli.show import print_summaries
from vitscope.cli.terminal import stdout, waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.labs.experiment import Experiment
    from vitscope.labs.lab import AbstractLab
    from vitscope.labs.shallow.planting import Planting


@dataclass(frozen=True)
class LabRequest:
    """Where the run is saved; each field is a flag."""

    out: str | None = None
    """Folder or fsspec URL; labs/NAME-ADDRESS if left out."""
    resume: bool = False
    """Continue an interrupted run."""


@dataclass(frozen=True)
class PlantedRequest:
    """Images to make tokens of instead of the token model; each field is a flag."""

    images: str | None = None
    """Make tokens of the patches of these labelled square images in noise; given as for vitscope checkup."""
    split: str | None = None
    """Which of several splits of --images."""
    label: str | None = None
    """Column or key of their labels."""
    classes: str = "0,1"
    """Numbers of two classes, +1 and -1; for spurious-tokens of four, the last two for the spurious patches."""
    limit: int | None = None
    """Take this many of the images, each class in proportion to its size, chosen by --seed; half to train on and half
    to test on."""
    patch: int = 4
    """Pixels along a side of a patch, which is a token."""
    side: int | None = None
    """Patches along a side of a planted image; those of the object if left out."""
    background: float = 0.25
    """Standard deviation of the noise of background patches."""

    def planting(self, seed: int) -> "Planting | None":
        """The objects to plant; None without --images."""
        if self.images is None:
            return None
        from vitscope.data import images
        from vitscope.labs.shallow.planting import objects_to_plant

        parts = [part.strip() for part in self.classes.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise UserError(f"--classes takes class numbers separated by commas, as in 3,5; not {self.classes!r}.")
        found = images(self.images, split=self.split, label=self.label)
        chosen = tuple(map(int, parts))
        return objects_to_plant(found, chosen, self.limit, seed, self.side, self.patch, self.background)


class LabGroup(RegisteredGroup):
    """One command for each registered lab."""

    kind, noun = "Labs", "lab"

    def requests(self, entry: Entry) -> tuple[type[Any], ...]:
        """The output, the workers and, for a lab that can plant images, the images."""
        plants = "planted" in (field.name for field in entry.fields)
        return (LabRequest, Workers, *((PlantedRequest,) if plants else ()))


@final
class Labs(LabGroup):
    """The labs without a grid."""

    def command(self, chosen: Callable[[], type[Any]]) -> Callable[..., None]:
        """A command that runs the lab."""

        def run(**fields: object) -> None:
            make_settings(Workers, fields).check()
            from vitscope.labs.experiment import Experiment

            _show(Experiment(_lab(chosen(), fields)), fields)

        return run


@final
class Sweeps(LabGroup):
    """The labs with a grid over their settings."""

    def command(self, chosen: Callable[[], type[Any]]) -> Callable[..., None]:
        """A command that runs the lab at every point of the grid."""

        def run(
            grid: Annotated[
                list[str],
                typer.Option(help="Settings and their values: noise=0.1,0.2 or noise=0.1:0.5:9. Several may be given."),
            ],
            more: Annotated[list[str] | None, typer.Argument(metavar="[FIELD=VALUES]...", show_default=False)] = None,
            **fields: object,
        ) -> None:
            make_settings(Workers, fields).check()
            from vitscope.labs.experiment import grid_of

            _show(grid_of(_lab(chosen(), fields), _texts([*grid, *(more or ())])), fields)

        return run


def list_labs() -> None:
    """List the labs."""
    print_summaries(entries()["Labs"].values())
    stdout().print(
        "vitscope lab run NAME runs one; vitscope lab run NAME --help tells more.", style="dim", highlight=False
    )


def _lab(chosen: "type[AbstractLab[Any]]", given: Mapping[str, object]) -> "AbstractLab[Any]":
    """The lab, with its images planted if some are given."""
    lab = make_settings(chosen, given)
    if "planted" not in (one.name for one in fields(lab)):
        return lab
    with waiting("Reading the images"):
        planted = make_settings(PlantedRequest, given).planting(int(str(lab.settings["seed"])))
    return replace(lab, planted=planted)  # pyright: ignore[reportCallIssue] - it has the field


def _show(experiment: "Experiment", given: Mapping[str, object]) -> None:
    """Answer the question, write the page, and show both in a few lines."""
    from vitscope.engine.plan import Plan

    request = make_settings(LabRequest, given)
    plan = Plan(executor=make_settings(Workers, given).executor, resume=request.resume, command=command_line())
    answer(experiment, "labs", request.out, plan)


def _texts(given: list[str]) -> dict[str, str]:
    """The values of each field, as text."""
    texts: dict[str, str] = {}
    for one in given:
        name, equals, values = one.partition("=")
        if not equals or not values or name in texts:
            raise UserError(f"--grid takes settings and values once each, as in noise=0.1,0.2; not {one!r}.")
        texts[name.strip().replace("-", "_")] = values
    return texts


lab = typer.Typer(
    cls=Commands,
    help="Theory labs: small transformers trained by the thousand and compared with the theorems.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lab.command("list")(list_labs)
lab.add_typer(typer.Typer(cls=Labs, help="Run a lab.", no_args_is_help=True), name="run")
sweep = typer.Typer(cls=Sweeps, help="Run a lab over a grid of its settings.", no_args_is_help=True)
