"""What the terminal shows of tables is whole, however narrow it is."""

import re

import pytest
from rich.console import Console

from vitscope.cli.terminal import columns

ROWS = (
    ("0", "blocks.0.attention", "312", "98.3 ± 1.2 %"),
    ("11", "layers.3.blocks.17.attention.of.a.long.name", "1234", ""),
    ("12", "mlp", "", "100.0 ± 0.0 %"),
)


def shown(width: int, gap: int = 2) -> str:
    table = columns("#", "unit", "heads", "top-1", right=("heads", "top-1"), fold=("unit",), gap=gap)
    for row in ROWS:
        table.add_row(*row)
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table, highlight=False)
    return captured.get()


@pytest.mark.parametrize("gap", [1, 2])
def test_no_width_cuts_anything_off(gap: int) -> None:
    for width in range(21, 101):
        text = shown(width, gap)
        assert max(map(len, text.splitlines())) <= width
        for value in ("312", "1234", "98.3 ± 1.2 %", "100.0 ± 0.0 %"):
            assert re.search(rf"(?<!\d){re.escape(value)}(?!\d)", text), (width, value, text)


def test_a_narrow_terminal_has_names_and_values_below_one_another() -> None:
    assert "heads  312" in shown(30)
    assert "heads  312" not in shown(80)
    assert "heads" in shown(80)
