"""``vitscope study NAME``: a grid of interventions, its run and its page."""

from collections.abc import Callable
from typing import Any, final

from vitscope.cli.entry import Entry
from vitscope.cli.flags import make_settings
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import Request, answer
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers


@final
class Studies(RegisteredGroup):
    """One command for each registered study."""

    kind, noun = "Studies", "study"

    def requests(self, entry: Entry) -> tuple[type[Any], ...]:
        """A model and images, and the workers."""
        del entry
        return Request, Workers

    def command(self, chosen: Callable[[], type[Any]]) -> Callable[..., None]:
        """A command that resolves the study for the model and the images, runs it, and writes its page."""

        def run_study(**fields: object) -> None:
            request, workers = make_settings(Request, fields), make_settings(Workers, fields).check()
            with waiting("Loading the model and the images"):
                from vitscope.engine.study import resolve_study
                from vitscope.findings.checkup import Concluded

                plan = request.plan(workers)
                chosen_study = make_settings(chosen(), fields)
                pictures, subject = request.pictures(), request.subject()
            with waiting("Preparing the study"):
                question = Concluded(resolve_study(subject, pictures, chosen_study, None, plan))
            answer(question, "studies", request.out, plan)

        return run_study
