"""``vitscope study NAME``: a grid of interventions, its run and its page."""

from collections.abc import Callable
from typing import Any, final

from vitscope.cli.entry import Entry
from vitscope.cli.flags import made
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import Question, Request
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
        """Settle the study for the model and the images, run it, and write its page."""

        def studied(**fields: object) -> None:
            request, workers = made(Request, fields), made(Workers, fields).checked()
            with waiting("Loading the model and the images"):
                from vitscope.engine.study import settled
                from vitscope.findings.checkup import concluded

                plan = request.plan(workers)
                asked = made(chosen(), fields)
                pictures, subject = request.pictures(), request.subject()
            with waiting("Settling the study"):
                study = settled(subject, pictures, asked, None, plan)
            question = Question(
                subject.name, study.spec, study.passes, lambda plan: concluded(study.answer(plan), plan), study.kept
            )
            question.show("studies", request.out, plan)

        return studied
