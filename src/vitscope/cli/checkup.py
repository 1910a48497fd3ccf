"""``vitscope checkup``: examine a model on images, keep the run, write its page."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.flags import made, with_flags
from vitscope.cli.index import find
from vitscope.cli.request import Question, Request
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError
from vitscope.runs import registry

if TYPE_CHECKING:
    from vitscope.engine.measure import Measurable


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
    for names in (only, skip):
        named(names)  # which refuses what is not there, before anything heavy is imported
    with waiting("Loading the model and the images"):
        from vitscope.findings.checkup import Checkup
        from vitscope.findings.checkup import deep as beyond

        diagnostics = chosen(only, skip)
        curvatures, studies = beyond() if deep else ((), ())
        plan = request.plan(made(Workers, fields))
        pictures, subject = request.pictures(), request.subject()
        asked = Checkup.of(subject, pictures, (*diagnostics, *curvatures), studies)
    Question(subject.name, asked.spec, asked.passes, asked.answer, asked.kept).show("checkups", request.out, plan)


def chosen(only: str | None, skip: str | None) -> "tuple[Measurable, ...]":
    """The diagnostics that are asked for, in the order of their names; the curvature of the loss only by its name."""
    wanted, unwanted = named(only), named(skip)
    from vitscope.engine.curvature import CURVATURES
    from vitscope.engine.diagnostic import DIAGNOSTICS

    names = sorted(set(DIAGNOSTICS if only is None else wanted) - set(unwanted))
    if not names:
        raise UserError("--only and --skip leave no diagnostic to measure.")
    return registry.chosen(names, DIAGNOSTICS, CURVATURES)


def named(text: str | None) -> tuple[str, ...]:
    """The names of diagnostics in a text with commas between. ``UserError`` for one that is not there."""
    names = tuple(filter(None, re.split(r"[,\s]+", text or "")))
    return tuple(find("Diagnostics", name, "diagnostic").name for name in names)


checkup = with_flags(examine, Request, Workers)
