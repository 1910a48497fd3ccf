"""The page: one self-contained HTML file for one or several runs."""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from vitscope.measurement.errors import UserError
from vitscope.report.colour import DARK, LIGHT, declarations
from vitscope.report.drawing.drawing import MARGIN_LEFT, MARGIN_RIGHT
from vitscope.report.text import breakable, sentence
from vitscope.report.view import MOST_FACTS, SHOWN_MULTIPLES, RunView, advice_heading, glyph, tone
from vitscope.runs.run import Run
from vitscope.runs.store import read_run
from vitscope.runs.whole import local_path, write_whole

AsRun = Run | str | os.PathLike[str]
"""A run, or where it is."""
AsRuns = AsRun | Iterable[AsRun]


def write_page(runs: AsRuns, path: str | os.PathLike[str]) -> Path:
    """Write the page, as :func:`vitscope.report.report` says."""
    chosen = runs_of(runs)
    if not chosen:
        raise UserError("There is no run to report on; give at least one.")
    return write_whole(page_path(path), encode(page(chosen)))


def runs_of(given: AsRuns) -> tuple[Run, ...]:
    """One or several runs, given as runs or as folders and files. ``UserError`` for anything else."""
    one = isinstance(given, Run | str | os.PathLike) or not isinstance(given, Iterable)  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
    return tuple(map(_run_of, (given,) if one else given))  # pyright: ignore[reportArgumentType]


def _run_of(given: AsRun) -> Run:
    if isinstance(given, str | os.PathLike):
        return read_run(given)
    if isinstance(given, Run):  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
        return given
    raise UserError(f"{given!r:.60} is not a run; give runs or their folders.")


def page_path(path: str | os.PathLike[str]) -> Path:
    """Where a page goes. ``UserError`` for a URL, and for a file that is not a page, which is never overwritten."""
    target = local_path(path, "A page is")
    if target.suffix == ".nc":
        other = target.with_suffix(".html")
        raise UserError(f"{target} has the name of a run; give the page another name, such as {other}.")
    if target.is_file():
        with target.open("rb") as file:
            begins = file.read(1024).lstrip().lower()
        if begins and not begins.startswith((b"<!doctype html", b"<html")):
            raise UserError(f"{target} exists and is not a page; give the page another name.")
    return target


def page(runs: Sequence[Run]) -> str:
    """The page's HTML."""
    views = [RunView(run, f"run{number}") for number, run in enumerate(runs, start=1)]
    return render("page.html.j2", views=views)


def render(template: str, **shown: object) -> str:
    """A page from its template, with style, script, palette and plotly's library."""
    environment = _environment()
    return environment.get_template(template).render(
        most_facts=MOST_FACTS,
        multiples=SHOWN_MULTIPLES,
        style=_source(environment, "style.css"),
        script=_source(environment, "page.js"),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
        light=Markup(declarations(LIGHT)),
        dark=Markup(declarations(DARK)),
        left=MARGIN_LEFT,
        right=MARGIN_RIGHT,
        **shown,
    )


def encode(html: str) -> bytes:
    """UTF-8, with escapes for bytes of names that are not UTF-8."""
    return html.encode("utf-8", "backslashreplace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitscope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(sentence=sentence, breakable=breakable, advising=advice_heading, glyph=glyph, tone=tone)
    return environment


def _source(environment: Environment, name: str) -> Markup:
    loader = environment.loader
    return Markup(loader.get_source(environment, name)[0] if loader else "")
