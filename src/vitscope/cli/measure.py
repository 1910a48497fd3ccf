"""``vitscope measure NAME``: one diagnostic with settings of its own, its run and its page."""

from collections.abc import Callable
from typing import Any, final

from vitscope.cli.entry import Entry
from vitscope.cli.flags import make_settings
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import Request, answer
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers


@final
class Diagnostics(RegisteredGroup):
    """One command for each registered diagnostic."""

    kind, noun = "Diagnostics", "diagnostic"

    def requests(self, entry: Entry) -> tuple[type[Any], ...]:
        """A model and images, and the workers."""
        del entry
        return Request, Workers

    def command(self, chosen: Callable[[], type[Any]]) -> Callable[..., None]:
        """A command that measures the diagnostic on the images, and writes its page."""

        def run_measure(**fields: object) -> None:
            request, workers = make_settings(Request, fields), make_settings(Workers, fields).check()
            with waiting("Loading the model and the images"):
                from vitscope.findings.checkup import Checkup

                plan = request.plan(workers)
                diagnostic = make_settings(chosen(), fields)
                pictures, subject = request.pictures(), request.subject()
                question = Checkup.of(subject, pictures, (diagnostic,), ())
            answer(question, "measured", request.out, plan)

        return run_measure
