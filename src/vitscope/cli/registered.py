"""Groups of commands, one for each class of a registry, which is imported when the group is used."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperGroup

from vitscope.cli.entry import plain
from vitscope.cli.flags import with_flags
from vitscope.cli.request import Request
from vitscope.measurement.errors import UserError


class RegisteredGroup(TyperGroup):
    """The classes of a registry as commands: flags are the fields of :class:`Request` and of the class."""

    @abstractmethod
    def classes(self) -> Mapping[str, type[Any]]:
        """The classes by name."""

    @abstractmethod
    def run(self, chosen: type[Any], fields: Mapping[str, object]) -> None:
        """Carry out the command of a class."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - click's or typer's own
        """The names of the classes."""
        del ctx
        return list(self.classes())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command of a class; ``UserError`` for a name that is not there."""
        del ctx
        classes = self.classes()
        if cmd_name not in classes:
            raise UserError(f"There is no {self.name} named {cmd_name!r}; there are: {', '.join(classes)}.")
        return _command(cmd_name, classes[cmd_name], self.run)


def _command(name: str, cls: type[Any], run: Callable[[type[Any], Mapping[str, object]], None]) -> object:
    def carried_out(**fields: object) -> None:
        run(cls, fields)

    carried_out.__doc__ = plain(cleandoc(cls.__doc__ or ""))
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command(name)(with_flags(carried_out, Request, cls))
    return typer.main.get_command(app)
