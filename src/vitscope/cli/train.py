"""``vitscope train``: a recipe's fields as flags."""

import dataclasses
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin

import typer

from vitscope.cli.documentation import field_documentation
from vitscope.cli.entry import plain
from vitscope.cli.rim import INTERRUPTED, command_line, fail
from vitscope.cli.terminal import hint, stdout, waiting
from vitscope.measurement.errors import UserError
from vitscope.training.recipe import Recipe

if TYPE_CHECKING:
    from vitscope.data import Images

TEST_SPLITS = ("test", "validation", "val")
"""Where the images for testing are looked for, in this order."""


def train_on(
    images: Annotated[str, typer.Option(help="As for vitscope checkup; with labels.")],
    out: Annotated[str, typer.Option(help="Folder for weights, metrics and the state to resume from.")],
    split: Annotated[str | None, typer.Option(help="Split to train on; train where there is one.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to test on; test or validation if there.")] = None,
    limit: Annotated[int | None, typer.Option(help="Train on so many images, balanced by class.")] = None,
    label: Annotated[str | None, typer.Option(help="Column or key of the labels.")] = None,
    max_broken: Annotated[int, typer.Option(help="Unreadable images to put up with.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training ended.")] = False,
    **recipe: object,
) -> None:
    """Train a model on labelled images, test it after each epoch, and keep its weights."""
    for name, value in recipe.items():
        _check_choice(name, value)
    settings = Recipe(**cast("dict[str, Any]", recipe))
    with waiting("Loading the images"):
        from vitscope.training.progress import ProgressBar
        from vitscope.training.train import train as trained

        shown = _images(images, (split,) if split else ("train", None), label, limit, settings.seed, max_broken)
        test = _images(images, (test_split,) if test_split else (*TEST_SPLITS, None), label, None, 0, max_broken)
    if shown.name == test.name:
        hint(f"{images} has no split to test on; the training goes untested.")
    try:
        result = trained(settings, shown, Path(out), None if shown.name == test.name else test, resume, ProgressBar())
    except KeyboardInterrupt:
        again = command_line()
        again = again if resume else f"{again} --resume"
        fail(f"interrupted; the last saved state is kept; go on with: {again}", INTERRUPTED, "")
    stdout().print(f"{result.weights}", style="bold", soft_wrap=True, highlight=False)
    tested = "" if shown.name == test.name else f" --split {test.name.rpartition('/')[2]}"
    hint(f"next: vitscope checkup {result.weights} --images {images}{tested}")


def _images(
    source: str, splits: tuple[str | None, ...], label: str | None, limit: int | None, seed: int, max_broken: int
) -> "Images":
    """The images of the first of these splits that the source has."""
    from vitscope.data import images

    for split in splits[:-1]:
        try:
            return images(source, split=split, label=label, limit=limit, seed=seed, max_broken=max_broken)
        except UserError:
            continue
    return images(source, split=splits[-1], label=label, limit=limit, seed=seed, max_broken=max_broken)


def _flag(annotation: object) -> Any:  # noqa: ANN401 - a type, or a union of types
    """The type that the command line reads: choices as their plain type, which the recipe checks."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _flag(next(part for part in get_args(annotation) if part is not type(None))) | None
    return annotation


def _choices(annotation: object) -> tuple[str, ...]:
    """The values of a choice; none for a number or text."""
    parts = (annotation, *get_args(annotation))
    return next((tuple(map(str, get_args(part))) for part in parts if get_origin(part) is Literal), ())


def _check_choice(name: str, value: object) -> None:
    choices = _choices(next(field.type for field in dataclasses.fields(Recipe) if field.name == name))
    if choices and value is not None and str(value) not in choices:
        raise UserError(f"--{name.replace('_', '-')} is one of {', '.join(choices)}, not {value!r}.")


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a flag for every field of the recipe, its help the field's docstring."""
    helps = field_documentation(Recipe)
    fixed = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [_parameter(field, plain(helps[field.name])) for field in dataclasses.fields(Recipe)]
    taken = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*fixed, *flags)]
    command.__signature__ = inspect.Signature(taken, return_annotation=None)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    return command


def _parameter(field: "dataclasses.Field[Any]", help: str) -> inspect.Parameter:
    if choices := _choices(field.type):
        help = f"{help} One of {', '.join(choices)}."
    kind = typer.Argument(help=help) if field.name == "model" else typer.Option(help=help)
    annotation = Annotated[_flag(field.type), kind]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


train = _with_flags(train_on)
