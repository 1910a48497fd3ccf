"""Commands whose flags are the fields of dataclasses: a field's type, default and docstring say all there is."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import typer

from vitscope.cli.documentation import field_documentation, fields_in_order
from vitscope.cli.entry import plain
from vitscope.measurement.errors import UserError

T = TypeVar("T")


def with_flags(
    command: Callable[..., None], *sources: type[Any], argument: str = "model", without: Sequence[str] = ()
) -> Callable[..., None]:
    """``command``, whose keyword arguments are the fields of ``sources``; the one named ``argument`` has no dashes.

    A field that several sources have is one flag, described by the first of them. A field whose name a method has
    taken says its flag's name in its metadata, under ``flag``. Fields named in ``without``, and those whose name there
    is empty, are no flags. A class's own fields come before those of its bases.
    """
    fixed = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags: dict[str, inspect.Parameter] = {}
    for source in sources:
        helps = field_documentation(source)
        for field in fields_in_order(source):
            if field.name not in without and _flag_name(field):
                flag = _parameter(field, plain(helps.get(field.name, "")), field.name == argument)
                flags.setdefault(_flag_name(field), flag)
    taken = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*fixed, *flags.values())]
    described = cast(Any, command)
    described.__signature__ = inspect.Signature(taken, return_annotation=None)
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    return command


def made(cls: type[T], values: Mapping[str, object]) -> T:
    """The dataclass with those of the values that are its fields; ``UserError`` for one that is no choice of its."""
    fields = dataclasses.fields(cast(Any, cls))
    for field in fields:
        choices, value = _choices(field.type), values.get(_flag_name(field))
        if choices and value is not None and str(value) not in choices:
            raise UserError(f"--{_flag_name(field).replace('_', '-')} is one of {', '.join(choices)}, not {value!r}.")
    return cls(**{field.name: values[_flag_name(field)] for field in fields if _flag_name(field) in values})


def _flag_name(field: "dataclasses.Field[Any]") -> str:
    return field.metadata.get("flag", field.name)


def _parameter(field: "dataclasses.Field[Any]", text: str, positional: bool) -> inspect.Parameter:
    if choices := _choices(field.type):
        text = f"{text} One of {', '.join(choices)}."
    name = _flag_name(field)
    switch = (f"--{name.replace('_', '-')}",) if field.default is False else ()
    kind: Any = typer.Argument(help=text) if positional else typer.Option(*switch, help=text)
    annotation = Annotated[_flag(field.type), kind]
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(annotation: object) -> Any:  # noqa: ANN401 - a type, or a union of types
    """The type that the command line reads: choices as their plain type, which the dataclass checks."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _flag(next(part for part in get_args(annotation) if part is not type(None))) | None
    return annotation


def _choices(annotation: object) -> tuple[str, ...]:
    """The values of a choice; none for a number or text."""
    parts = (annotation, *get_args(annotation))
    return next((tuple(map(str, get_args(part))) for part in parts if get_origin(part) is Literal), ())
