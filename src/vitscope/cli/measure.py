"""``vitscope measure NAME``: one diagnostic with settings of its own, its run and its page."""

from collections.abc import Mapping
from typing import Any, final

from vitscope.cli.flags import made
from vitscope.cli.registered import RegisteredGroup
from vitscope.cli.request import Question, Request
from vitscope.cli.terminal import waiting


@final
class Diagnostics(RegisteredGroup):
    """One command for each registered diagnostic."""

    def classes(self) -> Mapping[str, type[Any]]:
        """The diagnostics by name."""
        from vitscope.cli.entry import diagnostics

        return diagnostics()

    def run(self, chosen: type[Any], fields: Mapping[str, object]) -> None:
        """Measure it on the images, and write its page."""
        request, diagnostic = made(Request, fields), made(chosen, fields)
        with waiting("Loading the model and the images"):
            from vitscope.findings.checkup import Checkup

            request.plan()
            pictures, subject = request.pictures(), request.subject()
            asked = Checkup.of(subject, pictures, (diagnostic,), ())
        request.show(Question(subject.name, asked.spec, asked.passes, asked.answer, asked.kept), "measured")
