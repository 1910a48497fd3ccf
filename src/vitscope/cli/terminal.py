"""What is seen on the terminal: results on stdout, all else on stderr, and progress only where someone watches."""

from collections.abc import Generator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

VERDICT_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def stdout() -> Console:
    """Where results go."""
    return Console()


def stderr() -> Console:
    """Where errors, hints and progress go."""
    return Console(stderr=True)


def hint(text: str) -> None:
    """A line that helps and is no result."""
    stderr().print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def waiting(text: str) -> Generator[None]:
    """A line that is there while something takes time."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


class ProgressBar:
    """A bar with the images (or else) done and the time left; nothing where stderr is not a terminal."""

    def __init__(self, what: str, total: int, of: str = "images") -> None:
        console = stderr()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(f"{of},"),
            TimeRemainingColumn(),
            TextColumn("left,"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        self._progress.update(self._task, completed=done, total=total)

    def at(self, what: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, description=what)


def columns(*names: str, right: tuple[str, ...] = (), fold: tuple[str, ...] = (), gap: int = 2) -> Table:
    """A table with these columns and no frame; columns of ``fold`` may wrap, others keep their width."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for name in names:
        side = "right" if name in right else "left"
        table.add_column(name, justify=side, no_wrap=name not in fold, overflow="fold")
    return table


def facts() -> Table:
    """A table of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
