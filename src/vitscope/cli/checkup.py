"""``vitscope checkup``: examine a model on images, save the run, write its page."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.index import entries, find
from vitscope.cli.request import Request, answer
from vitscope.cli.terminal import waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.errors import UserError
from vitscope.runs import registry

if TYPE_CHECKING:
    from vitscope.engine.grid import AbstractStudy
    from vitscope.engine.measure import Measurable


def examine(
    only: Annotated[str | None, typer.Option(help="Only these diagnostics, separated by commas.")] = None,
    skip: Annotated[str | None, typer.Option(help="All diagnostics, and studies of --deep, except these.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Add the affordable studies and the Hessian; takes some minutes more.")
    ] = False,
    **fields: object,
) -> None:
    """Examine a model on images: every diagnostic in one pass, the findings, and a page.

    Without arguments the embedded model is examined on the embedded images.
    """
    request, workers = make_settings(Request, fields), make_settings(Workers, fields).check()
    parse_names(only)
    parse_names(skip, deep)  # both refuse unknown names before anything heavy is imported
    with waiting("Loading the model and the images"):
        from vitscope.findings.checkup import Checkup

        diagnostics, studies = (
            deepen(choose_diagnostics(only, skip, deep), skip) if deep else (choose_diagnostics(only, skip), ())
        )
        plan = request.plan(workers)
        pictures, subject = request.pictures(), request.subject()
        question = Checkup.of(subject, pictures, diagnostics, studies)
    answer(question, "checkups", request.out, plan)


def deepen(
    diagnostics: "tuple[Measurable, ...]", skip: str | None
) -> "tuple[tuple[Measurable, ...], tuple[AbstractStudy, ...]]":
    """These and the curvature and studies that a deep checkup adds, at its settings, except those to skip."""
    from vitscope.findings.checkup import deep

    curvatures, studies = deep()
    unwanted = parse_names(skip, deep=True)
    measured = {one.name: one for one in (*diagnostics, *curvatures) if one.name not in unwanted}
    return tuple(measured.values()), tuple(one for one in studies if one.name not in unwanted)


def choose_diagnostics(only: str | None, skip: str | None, deep: bool = False) -> "tuple[Measurable, ...]":
    """The requested diagnostics, sorted by name; curvature of the loss only if it is named."""
    wanted, unwanted = parse_names(only), parse_names(skip, deep)
    from vitscope.engine.curvature.curvature import CURVATURES
    from vitscope.engine.reading.diagnostic import DIAGNOSTICS

    names = sorted(set(DIAGNOSTICS if only is None else wanted) - set(unwanted))
    if not names:
        raise UserError("--only and --skip leave no diagnostic to measure.")
    return registry.resolve_names(names, DIAGNOSTICS, CURVATURES)


def parse_names(text: str | None, deep: bool = False) -> tuple[str, ...]:
    """The names of diagnostics in a comma-separated text, and of studies for a deep checkup.

    ``UserError`` for an unknown one.
    """
    names = tuple(filter(None, re.split(r"[,\s]+", text or "")))
    studies = entries()["Studies"] if deep else ()
    return tuple(name if name in studies else find("Diagnostics", name, "diagnostic").name for name in names)


checkup = with_flags(examine, Request, Workers)
