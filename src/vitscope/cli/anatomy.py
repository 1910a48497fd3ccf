"""``vitscope anatomy``: the units of a model, from one pass over zeros."""

import re
from typing import TYPE_CHECKING

from rich.text import Text

from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.model import ModelRequest
from vitscope.cli.terminal import columns, stdout, waiting
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    from vitscope.cli.survey import SurveyedUnit


_COLUMNS = ("#", "unit", "kind", "at", "grid", "tokens", "dim", "heads", "window", "size")
_GAP = 1


def show_units(**fields: object) -> None:
    """Show the units of a model: kind, stage, grid, tokens, channels, heads, windows, parameters."""
    request = make_settings(ModelRequest, fields)
    with waiting("Loading the model"):
        subject = request.subject()
        from vitscope.cli.survey import survey

        units = survey(subject)
    classes = f"{subject.class_count} classes" if subject.class_count else "no classifier"
    console = stdout()
    facts = f"  {subject.family}, {subject.parameter_count:,} parameters, {classes}"
    console.print(Text.assemble((printable(subject.name), "bold"), printable(facts)))
    for line in (f"input: {subject.preprocessing.text}", *subject.notes):
        console.print(Text(printable(line), style="dim"))
    table = columns(*_COLUMNS, right=("#", "tokens", "dim", "heads", "size"), fold=("unit",), gap=_GAP)
    rows, stage = [_cells(unit) for unit in units], 0
    room = console.width - sum(max(map(len, column)) + _GAP for column in zip(_COLUMNS, *rows, strict=True))
    room += max(len(name) for _, name, *_ in rows)
    for unit, (layer, name, *more) in zip(units, rows, strict=True):
        if unit.stage != stage:
            table.add_section()
            stage = unit.stage
        table.add_row(layer, Text("\n".join(_at_dots(printable(name), room))), *more)
    console.print(table, highlight=False)
    console.print(
        "#: layer. at: stage.block. tokens: including prefix tokens. window: windows x queries. "
        "size: parameters of the named submodule.",
        style="dim",
        highlight=False,
    )


def _cells(unit: "SurveyedUnit") -> tuple[str, ...]:
    (height, width), tokens, channels = unit.stream or ((0, 0), 0, 0)
    heads, windows, queries = unit.attention or (0, 0, 0)
    return (
        str(unit.layer),
        unit.name,
        unit.kind,
        "" if unit.block is None else f"{unit.stage}.{unit.block}",
        f"{height}x{width}" if unit.stream else "",
        str(tokens) if unit.stream else "",
        str(channels) if unit.stream else "",
        str(heads) if unit.attention else "",
        f"{windows}x{queries}" if unit.attention else "",
        "" if unit.parameters is None else _short(unit.parameters),
    )


def _short(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}k" if count >= 1e4 else str(count)


def _at_dots(name: str, room: int) -> list[str]:
    """A submodule's name broken after dots into lines that fit."""
    lines = [""]
    for part in re.findall(r"[^.]+\.?|\.", name):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return lines


anatomy = with_flags(show_units, ModelRequest, without=("crop",))
