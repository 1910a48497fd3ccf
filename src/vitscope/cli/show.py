"""``vitscope show``: one registered thing, in full."""

import dataclasses
import sys
from difflib import get_close_matches
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.cli.documentation import field_documentation, fields_in_order
from vitscope.cli.entry import entries, plain
from vitscope.cli.terminal import columns, facts, stdout, waiting
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.measurement.quantity import Quantity


def show(name: Annotated[str, typer.Argument(help="A name that vitscope list shows.")]) -> None:
    """Show what a diagnostic measures, a study asks, an intervention does, a finding decides or a family holds."""
    with waiting("Loading"):
        registered = entries()
    found = [(kind, classes[name]) for kind, classes in registered.items() if name in classes]
    if not found:
        known = [name for classes in registered.values() for name in classes]
        near = " or ".join(get_close_matches(name, known, n=2, cutoff=0.4))
        raise UserError(f"There is nothing named {name!r}{f' (is it {near}?)' if near else ''}; vitscope list has all.")
    for kind, cls in found:
        _show(name, kind, cls)


def _show(name: str, kind: str, cls: type[Any]) -> None:
    console = stdout()
    console.print(f"\n[bold]{name}[/]  [dim]{kind}, {cls.__module__}.{cls.__name__}[/]\n", highlight=False)
    console.print(plain(cleandoc(cls.__doc__ or "")), markup=False, highlight=False)
    console.print()
    shown = {"Diagnostics": _diagnostic, "Findings": _finding, "Model families": _family}
    shown.get(kind, _referenced)(cls)
    fields = fields_in_order(cls) if dataclasses.is_dataclass(cls) else ()
    if fields:
        documentation = field_documentation(cls)
        table = columns("field", "default", "meaning", fold=("meaning",))
        for field in fields:
            default = "required" if field.default is dataclasses.MISSING else repr(field.default)
            table.add_row(field.name, default, plain(documentation.get(field.name, "")))
        console.print(table, highlight=False)


def _diagnostic(cls: type[Any]) -> None:
    console = stdout()
    table = columns("quantity", "unit", "axis", "meaning", fold=("quantity", "meaning"))
    for quantity in _quantities(cls):
        meaning = f"{quantity.meaning} {quantity.better}"
        table.add_row(quantity.name, quantity.unit, quantity.axis or "", meaning)
    console.print(table, highlight=False)
    _referenced(cls)


def _referenced(cls: type[Any]) -> None:
    _facts(("title", cls.title), *(("reference", text) for text in cls.references))


def _finding(cls: type[Any]) -> None:
    finding = cls()
    from vitscope.measurement.claim import Verdict

    _facts(
        ("statement", finding.statement),
        ("rule", finding.rule),
        ("evidence", finding.evidence or "the run's spec"),
        ("reference", finding.reference),
        *((f"if it {verdict.value}", finding.outcomes[verdict].advice) for verdict in (Verdict.HOLDS, Verdict.FAILS)),
        ("if undecided", finding.outcomes[Verdict.UNDECIDED].advice),
    )


def _family(cls: type[Any]) -> None:
    _facts(("tested on", ", ".join(example.name for example in cls.examples())))


def _facts(*rows: tuple[str, str]) -> None:
    table = facts()
    for name, value in rows:
        table.add_row(name, value)
    console = stdout()
    console.print(table, highlight=False, markup=False)
    console.print()


def _quantities(cls: type) -> "list[Quantity]":
    """What the diagnostic's file declares that it measures."""
    from vitscope.measurement.quantity import Quantity

    return [value for value in vars(sys.modules[cls.__module__]).values() if isinstance(value, Quantity)]
