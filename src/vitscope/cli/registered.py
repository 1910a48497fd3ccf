"""Groups of commands, one for each registered class of a kind; the class is imported when its command runs."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import typer

from vitscope.cli.documentation import plain
from vitscope.cli.entry import Entry
from vitscope.cli.error_reporting import FlagCheckingGroup
from vitscope.cli.flags import with_flags
from vitscope.cli.index import entries, find


class RegisteredGroup(FlagCheckingGroup):
    """The classes of a kind as commands: flags are the fields of some requests and of the class."""

    kind: ClassVar[str]
    """The kind that ``vitscope list`` shows them under."""
    noun: ClassVar[str]
    """What one of them is called."""

    @abstractmethod
    def requests(self, entry: Entry) -> tuple[type[Any], ...]:
        """The dataclasses whose fields are flags too, before those of the class."""

    @abstractmethod
    def command(self, chosen: Callable[[], type[Any]]) -> Callable[..., None]:
        """The function behind the command of a class, which ``chosen`` imports; it takes the flags as keywords."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - click's or typer's own
        """The names of the classes."""
        del ctx
        return list(entries()[self.kind])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command of a class; ``UserError`` for an unknown name."""
        del ctx
        entry = find(self.kind, cmd_name, self.noun)
        command = self.command(entry.load)
        command.__doc__ = plain(entry.definition)
        app = typer.Typer(
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        app.command(cmd_name)(with_flags(command, *self.requests(entry), entry.fields))
        return typer.main.get_command(app)
