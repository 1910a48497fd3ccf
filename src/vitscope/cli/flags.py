"""Commands whose flags are the fields of dataclasses: a field's type, default and docstring define the flag."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import typer

from vitscope.cli.documentation import Field, fields_of, plain
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest

T = TypeVar("T")


def with_flags(
    command: Callable[..., None],
    *sources: type[Any] | Sequence[Field],
    argument: str = "model",
    without: Sequence[str] = (),
) -> Callable[..., None]:
    """``command`` with the fields of ``sources`` as flags; the field named ``argument`` is positional.

    A source is a dataclass, or the descriptions of its fields. A field that several sources have is one flag, described
    by the first of them. A field whose name a method has taken gives its flag's name in its metadata, under ``flag``.
    Fields named in ``without``, and those with an empty ``flag``, get no flag. A class's own fields come before those
    of its bases.
    """
    fixed = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags: dict[str, inspect.Parameter] = {}
    for source in sources:
        for field in fields_of(source) if isinstance(source, type) else source:
            if field.flag and field.name not in without:
                flags.setdefault(field.flag.name, _parameter(field, field.name == argument))
    taken = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*fixed, *flags.values())]
    described = cast(Any, command)
    described.__signature__ = inspect.Signature(taken, return_annotation=None)
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    return command


def make_settings(cls: type[T], values: Mapping[str, object]) -> T:
    """The dataclass from the values that are its fields; ``UserError`` for a value outside a field's choices."""
    given: dict[str, object] = {}
    for field in fields_of(cls):
        if field.flag and field.flag.name in values:
            value = values[field.flag.name]
            given[field.name] = tuple(cast("list[object]", value)) if isinstance(value, list) else value
            choices = field.flag.choices
            if choices and value is not None and str(value) not in choices:
                near = nearest(str(value), choices)
                raise UserError(f"{field.flag.dashed} is one of {', '.join(choices)}, not {value!r}{near}.")
    return cls(**given)


def _parameter(field: Field, positional: bool) -> inspect.Parameter:
    assert field.flag is not None, "fields without a flag are left out before"
    text = plain(field.meaning)
    if field.flag.choices:
        text = f"{text} One of {', '.join(field.flag.choices)}."
    default = inspect.Parameter.empty if field.default is None else ast.literal_eval(field.default)
    default = list(default) if isinstance(default, tuple) else default
    switch = (field.flag.dashed,) if default is False else ()
    kind: Any = typer.Argument(help=text) if positional else typer.Option(*switch, help=text)
    annotation = Annotated[field.flag.annotation, kind]
    return inspect.Parameter(field.flag.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
