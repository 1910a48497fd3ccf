"""The size of the model that a file's weights were saved from: its classes, channels and pixels.

It is read from the shapes. A model is built twice without memory, for example for two numbers of classes. The shapes
that differ show how they depend on that number, so that the file's shapes give the number it was saved with.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt

import torch
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, Size

Shapes = Mapping[str, tuple[int, ...]]

_TRIED = ((7, 11), (8, 16))
"""Two numbers of classes or channels to build models for, and two more if the model does not allow those."""
_SIDES = (448, 672)
"""Two sides of an input in pixels: multiples of all usual patches."""


@dataclass(frozen=True)
class NamedModel:
    """A model of a library by its name, with arguments of its constructor; not built yet."""

    library: type[AbstractLibrary]
    name: str
    options: Mapping[str, object]

    def arguments(self, size: Size) -> dict[str, object]:
        """The constructor's arguments for this size, which overrides the options."""
        return {**self.options, **self.library.options(size)}

    def shapes(self, size: Size) -> Shapes:
        """Names and shapes of its weights. Cost: that of :meth:`module`."""
        return {name: tuple(tensor.shape) for name, tensor in self.module(size).state_dict().items()}

    def module(self, size: Size) -> nn.Module:
        """The model, without memory for its weights if possible."""
        make = partial(self.library.create, self.name, False, **self.arguments(size))
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about copying weights without memory
                return make()
        except (NotImplementedError, UserError) as error:
            if not isinstance(error.__cause__ or error, NotImplementedError):
                raise
            return make()  # its constructor reads its own weights


def size_of(named: NamedModel, size: Size, found: Shapes) -> Size:
    """``size``, with the classes and channels that it leaves open taken from the file's weights.

    Pixels are read from position embeddings with rows and columns. Embeddings with one axis of tokens only give the
    number of tokens: then ``UserError`` says which ``--image-size`` would fit. If none fits, it is left open.
    """
    own = named.shapes(size)
    for what in ("classes", "channels"):
        if getattr(size, what) is None and not _agree(own, found):
            wrong = [*_difference(own, found), *(found.keys() - own.keys())]
            number = _linear(named, size, what, found, wrong)
            if number is None and what == "classes":
                number = _none(named, found)
            size = replace(size, **{what: number})
            own = own if number is None else named.shapes(size)
    if size.image is None and not _agree(own, found):
        return _with_pixels(named, size, found, own)
    return size


def _agree(own: Shapes, found: Shapes) -> bool:
    return own.keys() == found.keys() and not _difference(own, found)


def _difference(own: Shapes, found: Shapes) -> list[str]:
    return [name for name, shape in own.items() if name in found and found[name] != shape]


def _linear(named: NamedModel, size: Size, what: str, found: Shapes, wrong: Sequence[str]) -> int | None:
    """The number that all shapes depending on it imply in the file; None if they disagree or explain nothing wrong."""
    for low, high in _TRIED:
        first, second = (_make(named, replace(size, **{what: number})) for number in (low, high))
        if first is None or second is None:
            continue
        following = [name for name in _difference(first, second) if len(found.get(name, ())) == len(first[name])]
        numbers = {
            _solve(one, other, low, high, there)
            for name in following
            for one, other, there in zip(first[name], second[name], found[name], strict=True)
            if one != other
        }
        return numbers.pop() if len(numbers) == 1 and set(following) & set(wrong) else None
    return None


def _solve(first: int, second: int, low: int, high: int, there: int) -> int | None:
    """The number for which a side is ``there``, if it grows linearly from ``first`` to ``second``."""
    number, rest = divmod((there - first) * (high - low), second - first)
    return low + number if rest == 0 and low + number > 0 else None


def _make(named: NamedModel, size: Size) -> Shapes | None:
    try:
        return named.shapes(size)
    except UserError:
        return None


def _none(named: NamedModel, found: Shapes) -> int | None:
    """0 if the file lacks only a classifier's weights and the library makes such a model; else None."""
    try:
        own = _make(named, Size(classes=0))
    except UserError:
        return None
    return 0 if own and own.keys() <= found.keys() and not named.shapes(Size()).keys() <= found.keys() else None


def _with_pixels(named: NamedModel, size: Size, found: Shapes, own: Shapes) -> Size:
    shapes = [_make(named, replace(size, image=(side, side))) for side in _SIDES]
    if shapes[0] is None or shapes[1] is None:
        return size
    wrong = _difference(own, found)
    for name in _difference(shapes[0], shapes[1]):
        if name not in wrong:
            continue
        first, second, there = shapes[0][name], shapes[1][name], found.get(name, ())
        grown = [i for i, side in enumerate(first) if side != second[i]]
        if len(there) != len(first) or any(there[i] != side for i, side in enumerate(first) if i not in grown):
            continue  # another axis differs too, so it is of another model
        if len(grown) == 2:
            sides = [_solve(first[i], second[i], *_SIDES, there[i]) for i in grown]
            return replace(size, image=(sides[0], sides[1])) if sides[0] and sides[1] else size
        if len(grown) == 1:
            _ask(named, size, found, (name, own[name]), _side(first[grown[0]], second[grown[0]], there[grown[0]]))
    return size


def _side(first: int, second: int, there: int) -> int | None:
    """The side of the square picture with ``there`` tokens, if their number grows with its area; else None."""
    low, high = _SIDES
    patch = isqrt((high**2 - low**2) // (second - first)) if second > first else 0
    if not patch or low % patch:
        return None
    prefix = first - (low // patch) ** 2
    side = isqrt(max(there - prefix, 0))
    return side * patch if side**2 == there - prefix else None


def _ask(named: NamedModel, size: Size, found: Shapes, wrong: tuple[str, tuple[int, ...]], side: int | None) -> None:
    name, own = wrong
    fits = side is not None and _agree(_make(named, replace(size, image=(side, side))) or {"": ()}, found)
    what = f"--image-size {side} if they were square" if fits else "their height and width, as in --image-size 64x256"
    raise UserError(
        f"The weights were made for pictures of another size than {named.library.name}/{named.name} takes ({name} is "
        f"{_sides(found[name])} in the file and {_sides(own)} in the model) and do not say which size; give {what}."
    )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
