"""``vitscope train --grid --seeds``: trainings at every point of a grid, with several seeds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitscope.cli.error_reporting import command_line
from vitscope.cli.request import answer
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitscope.data import Images
    from vitscope.models.subject import Subject
    from vitscope.training.hook import AbstractHook
    from vitscope.training.objective import AbstractObjective
    from vitscope.training.recipe import Recipe


@dataclass(frozen=True)
class TrialRequest:
    """What is tried, how often, and where; each field is a flag."""

    grid: tuple[str, ...] = ()
    """Train at each of these values of a setting: learning_rate=5e-4,1e-3; give it again for another setting."""
    seeds: int = 1
    """Train each with this many seeds, from --seed on."""
    at_once: int = 1
    """Trainings of a grid that run at once on this machine, sharing its cores."""
    on: str = "local"
    """Where the trainings of a grid run: local, ray (a Ray cluster on this machine), or ray://HOST:PORT."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        for name, number in (("--seeds", self.seeds), ("--at-once", self.at_once)):
            if number < 1:
                raise UserError(f"{name} must be 1 or more, not {number}.")
        if not self and (self.at_once > 1 or self.on != "local"):
            raise UserError("--at-once and --on are for several trainings: give --grid or --seeds.")
        self.workers.check()

    def __bool__(self) -> bool:
        """Whether there are several trainings."""
        return bool(self.grid) or self.seeds > 1

    @property
    def workers(self) -> Workers:
        """The workers that run the trainings."""
        return Workers(self.at_once, self.on)


def train_grid(
    request: TrialRequest,
    recipe: "Recipe",
    images: "Images",
    test: "Images | None",
    start: "Subject | None",
    objective: "AbstractObjective | None",
    hooks: "Sequence[AbstractHook]",
    out: str,
    resume: bool,
) -> None:
    """Carry out the trainings, save them and their run in ``out``, write its page, and show both."""
    from vitscope.engine.plan import Plan
    from vitscope.training.trials import Grid, TrialsQuestion, parse_grid

    grid = Grid(recipe, images, parse_grid(request.grid), test, start, objective, tuple(hooks))
    plan = Plan(executor=request.workers.executor, resume=resume, command=command_line())
    answer(TrialsQuestion(grid, request.seeds), "trials", out, plan)
