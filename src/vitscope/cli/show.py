"""``vitscope list`` and ``vitscope show``: what is registered, in a line each, or one of them in full."""

from collections.abc import Iterable
from typing import Annotated

import typer

from vitscope.cli.documentation import plain
from vitscope.cli.entry import Entry
from vitscope.cli.index import entries
from vitscope.cli.terminal import columns, facts, stdout
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest


def list_entries() -> None:
    """List the diagnostics, studies, interventions, convex heads, labs, findings and families of models."""
    console = stdout()
    for kind, named in entries().items():
        console.print(f"\n[bold]{kind}[/]")
        print_summaries(named.values())
    console.print("vitscope show NAME shows one of them in full.", style="dim", highlight=False)


def print_summaries(listed: Iterable[Entry]) -> None:
    """Print a line for each entry."""
    table = columns("name", "what it is", fold=("what it is",))
    table.show_header = False
    for entry in listed:
        table.add_row(entry.name, entry.summary)
    stdout().print(table, highlight=False)


def show(name: Annotated[str, typer.Argument(help="A name that vitscope list shows.")]) -> None:
    """Show what a diagnostic measures, a study asks, an intervention does, a finding decides or a family holds."""
    registered = entries()
    found = [(kind, named[name]) for kind, named in registered.items() if name in named]
    if not found:
        known = [one for named in registered.values() for one in named]
        raise UserError(f"There is nothing named {name!r}{nearest(name, known, 2)}; vitscope list shows all names.")
    for kind, entry in found:
        _show(kind, entry)


def _show(kind: str, entry: Entry) -> None:
    console = stdout()
    home = entry.home.replace(":", ".")
    console.print(f"\n[bold]{entry.name}[/]  [dim]{kind}, {home}[/]\n", highlight=False)
    console.print(plain(entry.definition), markup=False, highlight=False)
    console.print()
    if entry.quantities:
        table = columns("quantity", "unit", "axis", "meaning", fold=("quantity", "meaning"))
        for quantity in entry.quantities:
            table.add_row(*quantity)
        console.print(table, highlight=False)
    said = facts()
    for fact in entry.facts:
        said.add_row(*fact)
    console.print(said, highlight=False, markup=False)
    console.print()
    if entry.fields:
        table = columns("field", "default", "meaning", fold=("meaning",))
        for field in entry.fields:
            table.add_row(field.name, field.default or "required", plain(field.meaning))
        console.print(table, highlight=False)
