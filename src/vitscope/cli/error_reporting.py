"""Errors become messages here, the only place that knows exit codes."""

import errno
import re
import shlex
import signal
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import current_thread, main_thread
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from vitscope.cli.terminal import show_warnings_as_hints, stderr
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.measurement.text import printable, reason

MISUSE, FAILURE, INTERRUPTED = 2, 1, 130
"""Exit codes: invalid input; a failure of the machine; Ctrl-C, or the signals treated like it."""

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|alloc_cpu")
SEVERAL = ("only", "skip", "watch")
"""Options that take several values, separated by commas."""

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


class FlagCheckingGroup(TyperGroup):
    """A group of commands that takes each option once, and no empty value."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - click's or typer's own
        """The command of the first argument; ``UserError`` for an option that is given twice or empty."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _refuse_misgiven(command, ctx, name, rest)
        return name, command, rest


def _refuse_misgiven(command: Any, ctx: Any, name: str | None, args: list[str]) -> None:  # noqa: ANN401
    """Raise ``UserError`` for an option given twice, where only the last would count, and for empty text."""
    own = command.context_class(command, parent=ctx, info_name=name, **command.context_settings)
    values, _, order = command.make_parser(own).parse_args(args=list(args))
    for number, one in enumerate(order):
        shown = one.opts[-1] if one.opts[-1].startswith("-") else str(one.name).upper()
        if one in order[:number] and not (getattr(one, "multiple", False) or getattr(one, "is_flag", False)):
            several = "; separate several values by commas" if one.name in SEVERAL else ""
            raise UserError(f"{shown} is given twice; give it once{several}.")
        if values.get(one.name) == "":
            raise UserError(f"{shown} is empty; give a value, or leave it out.")


class Commands(FlagCheckingGroup):
    """A group of commands that suggests the right name for a mistyped one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - click's or typer's own
        """The command of the first argument; ``UserError`` for an unknown name."""
        names = self.list_commands(ctx)
        if args and args[0] not in names:
            near, known = nearest(args[0], names), ", ".join(names)
            raise UserError(f"There is no command {args[0]!r}{near}; {ctx.command_path} has: {known}.")
        return super().resolve_command(ctx, args)


class ErrorReportingGroup(Commands):
    """The group of all commands, which turns errors the user can fix into one line on stderr, without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's or typer's own
        """Keep the arguments as they were given, for :func:`command_line`."""
        _typed.set(tuple(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401
        """Run the command."""
        try:
            with show_warnings_as_hints(), _interrupt_on_signals():
                return super().invoke(ctx)
        except UserError as error:
            fail(str(error), MISUSE)
        except KeyboardInterrupt:
            fail("interrupted.", INTERRUPTED, "")
        except BrokenPipeError:
            raise  # the reader of a pipe went away, which is not our failure
        except OSError as error:
            fail(_sentence(error), FAILURE)
        except MemoryError:
            fail("There is not enough memory; try a smaller --batch-size.", FAILURE)
        except RuntimeError as error:
            if not _OUT_OF_MEMORY.search(str(error)):
                raise
            fail("The device is out of memory; try a smaller --batch-size.", FAILURE)


def command_line() -> str:
    """The command as it was typed, to be typed again."""
    return shlex.join(["vitscope", *_typed.get()])


def fail(text: str, code: int, mark: str = "[bold red]Error:[/] ") -> NoReturn:
    """Print the text in one line on stderr and exit."""
    stderr().print(mark, end="")
    stderr().print(printable(text), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def _interrupt_on_signals() -> Generator[None]:
    """Treat SIGTERM and SIGHUP (a closed terminal) like Ctrl-C, so that the same parts are saved."""
    before: dict[signal.Signals, Any] = {}
    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is signal.SIG_DFL and current_thread() is main_thread():  # nohup stays nohup
            before[one] = signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _sentence(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    advice = {
        errno.ENOSPC: "; free some space or give another --out. Finished work is saved",
        errno.EDQUOT: "; free some space or give another --out. Finished work is saved",
        errno.EACCES: "; give another --out or fix the permissions",
        errno.EROFS: "; give another --out",
    }.get(error.errno or 0, "")
    return f"{reason(error)}{where}{advice}."
