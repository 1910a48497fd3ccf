"""``vitscope improve``: a better model from a diagnosis, with the proof and the files."""

from dataclasses import dataclass
from typing import Literal

from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.request import Request, answer, place_of
from vitscope.cli.terminal import hint, waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError


@dataclass(frozen=True)
class ImproveSettings:
    """What the model is to be better at, and what may be given up for it; each field is a flag."""

    goal: Literal["faster", "smaller", "calibrated", "accurate"] = "faster"
    """What the model is to be better at."""
    give_up: float = 0.5
    """Points of top-1 accuracy that may be given up, such as 0.5."""
    tries: str | None = None
    """Kinds of edits to try, separated by commas, such as tokens,units; those that serve the goal if left out."""
    trials: int = 300
    """Edits that are tried, at most."""
    test_split: str | None = None
    """Split to prove on; --split then gives the images to choose on. If left out, one split is divided in three."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        if not 0 <= self.give_up < 100:
            raise UserError(f"--give-up is {self.give_up:g}; give points of accuracy from 0 to below 100.")


def improve_model(
    **fields: object,
) -> None:
    """Find a better model: edits are tried, chosen on validation images, and proven on images that chose nothing.

    The better model is written to OUT/model.safetensors; `vitscope export` turns it into other forms.
    """
    request, settings = make_settings(Request, fields), make_settings(ImproveSettings, fields)
    workers = make_settings(Workers, fields).check()
    with waiting("Loading the model and the images"):
        from vitscope.engine.measure import fit_images
        from vitscope.improvement.goal import find_goal
        from vitscope.improvement.improve import MODEL, ImproveQuestion, resolve_tries
        from vitscope.improvement.splits import split_images

        goal = find_goal(settings.goal)
        chosen = resolve_tries(goal, [one.strip() for one in (settings.tries or "").split(",") if one.strip()])
        plan, pictures, subject = request.plan(workers), request.pictures(), request.subject()
        test = None if settings.test_split is None else request.pictures(settings.test_split)
        splits = split_images(
            fit_images(subject, pictures), None if test is None else fit_images(subject, test), request.seed
        )
        question = ImproveQuestion(subject, splits, goal, settings.give_up / 100, chosen, settings.trials, request.seed)
    out = request.out or place_of("better", question.name, question.spec)
    answer(question, "better", out, plan)
    hint(f"next: vitscope export {out}/{MODEL} {out}/better.onnx")


improve = with_flags(improve_model, ImproveSettings, Request, Workers)
