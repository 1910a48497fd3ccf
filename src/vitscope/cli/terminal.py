"""Terminal output: results on stdout, everything else on stderr, and a progress bar only on a terminal."""

import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.style import StyleType
from rich.table import Column, Table
from rich.text import Text

from vitscope.measurement.duration import format_duration
from vitscope.measurement.text import printable
from vitscope.runs.registry import PluginWarning
from vitscope.runs.seal import DamagedWarning

SILENCE = 30.0
"""Seconds between the lines that replace the progress bar without a terminal."""
MARK_COLOURS = {"problem": "bold red", "look at this": "bold yellow", "good": "green", "undecided": "dim"}
"""Colours of the marks before claims; other marks have none, and the text alone distinguishes them."""


FOLDED = 10
"""Width that a wrapping column needs to be readable, unless its content is shorter."""
MEASURED = 10_000
"""Width at which no cell wraps while it is measured."""


def stdout() -> Console:
    """Where results go."""
    return Console()


def stderr() -> Console:
    """Where errors, hints and progress go."""
    return Console(stderr=True)


def hint(text: str) -> None:
    """Print a line of advice on stderr."""
    stderr().print(printable(text), style="dim", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def waiting(text: str) -> Generator[None]:
    """Show a line on the terminal while the block runs."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def show_warnings_as_hints() -> Generator[None]:
    """Show warnings of skipped plugins and damaged files as a line, without the source location."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def print_warning(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, PluginWarning | DamagedWarning):
                hint(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = print_warning
        yield


class ProgressBar:
    """A bar with the share done and the time left; without a terminal a line every half minute instead."""

    def __init__(self, what: str, total: float | int, of: str = "") -> None:
        self._console = stderr()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn() if not of else MofNCompleteColumn(),
            TextColumn(f"{of}," if of else ","),
            TimeRemainingColumn(),
            TextColumn("left,"),
            TimeElapsedColumn(),
        )
        self._watched = self._console.is_terminal
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self._watched)
        self._task = self._progress.add_task(what, total=total)
        self._what, self._began = what, time.monotonic()
        self._found: float | None = None
        self._spoke = self._began

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, done: float | int, total: float | int) -> None:
        """Show that ``done`` of ``total`` is done."""
        self._progress.update(self._task, completed=done, total=total)
        self._found = done if self._found is None else self._found
        now = time.monotonic()
        if not self._watched and now - self._spoke > SILENCE and done > self._found:
            left = (now - self._began) / (done - self._found) * (total - done)
            self._spoke = now
            so_far, rest = format_duration(now - self._began), format_duration(left)
            hint(f"{self._what}: {done / total:.0%}, {so_far} so far, about {rest} left")

    def at(self, what: str) -> None:
        """Name what is being done now."""
        self._what = what
        self._progress.update(self._task, description=what)

    def say(self, text: str) -> None:
        """Announce what begins now, in a line that stays and as the bar's name."""
        self.at(text.partition(",")[0])
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


class _Plain(Table):
    """A table that shows its text as it is: file names must not act as markup or escape codes."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row of plain text."""
        shown = (Text(_make_printable(cell)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, style=style, end_section=end_section)


def _make_printable(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


class _Columns(_Plain):
    """A table that shows each row as names and values, one below the other, if its columns do not fit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            row = facts()
            for column, cell in zip(self.columns, cells, strict=True):
                if Measurement.get(console, options, cell).maximum:
                    row.add_row(column.header, cell)
            yield row
            yield ""

    def _least(self, console: Console, options: ConsoleOptions) -> int:
        """The width below which something would be cut off or wrapped unreadably."""
        widths = (max(self._widths(console, options, column)) for column in self.columns)
        pairs = zip(self.columns, widths, strict=True)
        lines = (self.padding[1] + 1) * (len(self.columns) - 1) + 2
        return lines + sum(width if one.no_wrap else min(width, FOLDED) for one, width in pairs)

    def _widths(self, console: Console, options: ConsoleOptions, column: Column) -> Iterator[int]:
        for cell in (column.header, *column.cells):
            yield Measurement.get(console, options.update(max_width=MEASURED), cell).maximum


def columns(*names: str, right: tuple[str, ...] = (), fold: tuple[str, ...] = (), gap: int = 2) -> Table:
    """A table with these columns and no frame; columns of ``fold`` may wrap, others keep their width.

    If the terminal is too narrow, each row is shown as names and values below one another: nothing is cut off.
    """
    table = _Columns(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for name in names:
        side = "right" if name in right else "left"
        table.add_column(name, justify=side, no_wrap=name not in fold, overflow="fold")
    return table


def facts() -> Table:
    """A table of names and values."""
    table = _Plain.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
