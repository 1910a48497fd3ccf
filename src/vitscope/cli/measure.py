"""``vitscope measure NAME``: one diagnostic with settings of its own, its run and its page."""

from collections.abc import Callable, Mapping
from typing import Any, final

from vitscope.cli.flags import made
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import Question, Request
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers


@final
class Diagnostics(RegisteredGroup):
    """One command for each registered diagnostic."""

    noun = "diagnostic"

    def classes(self) -> Mapping[str, type[Any]]:
        """The diagnostics by name."""
        from vitscope.cli.entry import diagnostics

        return diagnostics()

    def requests(self, chosen: type[Any]) -> tuple[type[Any], ...]:
        """A model and images, and the workers."""
        del chosen
        return Request, Workers

    def command(self, chosen: type[Any]) -> Callable[..., None]:
        """Measure it on the images, and write its page."""

        def measured(**fields: object) -> None:
            request, diagnostic = made(Request, fields), made(chosen, fields)
            with waiting("Loading the model and the images"):
                from vitscope.findings.checkup import Checkup

                plan = request.plan(made(Workers, fields))
                pictures, subject = request.pictures(), request.subject()
                asked = Checkup.of(subject, pictures, (diagnostic,), ())
            question = Question(subject.name, asked.spec, asked.passes, asked.answer, asked.kept)
            question.show("measured", request.out, plan)

        return measured
