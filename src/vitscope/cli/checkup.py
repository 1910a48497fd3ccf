"""``vitscope checkup``: examine a model on images, keep the run, write its page."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.flags import made, with_flags
from vitscope.cli.request import Question, Request
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.engine.diagnostic import AnyDiagnostic


def examine(
    only: Annotated[str | None, typer.Option(help="Only these diagnostics, with commas between.")] = None,
    skip: Annotated[str | None, typer.Option(help="All diagnostics but these.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also the affordable studies and the Hessian; some minutes more.")
    ] = False,
    **fields: object,
) -> None:
    """Examine a model on images: every diagnostic in one pass, the findings, and a page.

    Without arguments the embedded model is examined on the embedded images.
    """
    request = made(Request, fields)
    with waiting("Loading the model and the images"):
        from vitscope.findings.checkup import Checkup
        from vitscope.findings.checkup import deep as beyond

        diagnostics = chosen(only, skip)
        curvatures, studies = beyond() if deep else ((), ())
        plan = request.plan(made(Workers, fields))
        pictures, subject = request.pictures(), request.subject()
        asked = Checkup.of(subject, pictures, (*diagnostics, *curvatures), studies)
    Question(subject.name, asked.spec, asked.passes, asked.answer, asked.kept).show("checkups", request.out, plan)


def chosen(only: str | None, skip: str | None) -> "tuple[AnyDiagnostic, ...]":
    """The diagnostics that are asked for, in the registry's order."""
    from vitscope.diagnostics import default_diagnostics

    known = {diagnostic.name: diagnostic for diagnostic in default_diagnostics()}
    wanted, unwanted = (None if text is None else re.split(r"[,\s]+", text.strip(", ")) for text in (only, skip))
    for name in [*(wanted or ()), *(unwanted or ())]:
        if name not in known:
            raise UserError(f"There is no diagnostic named {name!r}; there are: {', '.join(known)}.")
    names = [name for name in known if (wanted is None or name in wanted) and name not in (unwanted or ())]
    if not names:
        raise UserError("--only and --skip leave no diagnostic to measure.")
    return tuple(known[name] for name in names)


checkup = with_flags(examine, Request, Workers)
