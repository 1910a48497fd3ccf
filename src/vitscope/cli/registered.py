"""Groups of commands, one for each class of a registry, which is imported when the group is used."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from vitscope.cli.entry import plain
from vitscope.cli.flags import with_flags
from vitscope.measurement.errors import UserError


class RegisteredGroup(TyperGroup):
    """The classes of a registry as commands: flags are the fields of some requests and of the class."""

    noun: ClassVar[str]
    """What a class is called."""

    @abstractmethod
    def classes(self) -> Mapping[str, type[Any]]:
        """The classes by name."""

    @abstractmethod
    def requests(self, chosen: type[Any]) -> tuple[type[Any], ...]:
        """The dataclasses whose fields are flags too, before those of the class."""

    @abstractmethod
    def command(self, chosen: type[Any]) -> Callable[..., None]:
        """What carries out the command of a class; it takes the flags as keywords."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - click's or typer's own
        """The names of the classes."""
        del ctx
        return list(self.classes())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command of a class; ``UserError`` for a name that is not there."""
        del ctx
        classes = self.classes()
        if cmd_name not in classes:
            raise UserError(f"There is no {self.noun} named {cmd_name!r}; there are: {', '.join(classes)}.")
        chosen = classes[cmd_name]
        command = self.command(chosen)
        command.__doc__ = plain(cleandoc(chosen.__doc__ or ""))
        app = typer.Typer(
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        app.command(cmd_name)(with_flags(command, *self.requests(chosen), chosen))
        return typer.main.get_command(app)
