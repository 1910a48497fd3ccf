"""A module's own forward pass: its call and its output, and whether a walk through its parts gives the same."""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from vitscope.measurement.errors import UserError
from vitscope.models.feed import input_like, module_input
from vitscope.models.hooks import hooks
from vitscope.models.output import describe_output, is_squeezed, rows_of
from vitscope.models.subject import Composition, Unwatched

_WANTED = "batch x classes logits"
_TOLERANCE = 1e-4
"""Largest difference of logits that counts as rounding, relative to the largest logit; larger in half precision."""


def call_module(module: nn.Module, images: Tensor, arguments: Mapping[str, object] | None = None) -> object:
    """The module's output for a copy of the images in its own precision."""
    given = dict(arguments or {})
    if "pixel_values" in inspect.signature(module.forward).parameters:
        return module(pixel_values=module_input(module, images), **given)
    return module(module_input(module, images), **given)


def own_output(
    module: nn.Module, images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch outputs"]:
    """The logits, or features, of the module's own forward pass. ``UserError`` if it returns anything else."""
    output = call_module(module, images)
    rows, name, count = rows_of(output), type(module).__name__, images.shape[0]  # len() would fix an exported batch
    if rows is None:
        advice = "do not squeeze the batch axis" if is_squeezed(output) else "wrap it in a module that does"
        raise UserError(f"{name} returns {describe_output(output)}; a classifier returns {_WANTED}: {advice}.")
    if rows.shape[0] != count:
        raise UserError(
            f"{name} returns {_many(rows.shape[0], 'row')} for {_many(count)}; a classifier returns {_WANTED}, one row "
            "per image: wrap it in a module that does."
        )
    return rows


def _many(count: int, what: str = "image") -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def probe_images(shape: tuple[int, int, int]) -> Float[Tensor, "2 channels height width"]:
    """Two pictures of noise, the second paler; always the same ones."""
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([1.0, 0.4]).view(-1, 1, 1, 1) + torch.tensor([0.0, 0.3]).view(-1, 1, 1, 1)


def why_unlike(
    module: nn.Module,
    anatomy: Composition,
    images: Float[Tensor, "batch channels height width"],
    arguments: Mapping[str, object],
) -> str:
    """Why a walk through the module's parts is not its own forward pass; empty if it is.

    Hooks and replaced methods that the walk skips come first: a forward hook, or a method replaced in one object, that
    runs fewer times in the walk than in the forward pass. Equal logits do not matter then, because it may act on other
    images. A deterministic walk cannot replace a random forward pass. Cost: a forward pass and a walk; two passes if
    they differ.
    """
    with torch.no_grad(), _random_state_kept():
        with _count_calls(module) as own:
            expected = call_module(module, images, arguments)
        with _count_calls(module) as walked:
            logits = anatomy.walk(images, Unwatched())
        passed_by = tuple(name for name, count in own.items() if walked[name] < count)
        if passed_by:
            more = f" and {len(passed_by) - 3} more" if len(passed_by) > 3 else ""
            return f"it has {', '.join(passed_by[:3])}{more}"
        apart = gap(logits, expected)
        if apart <= allowed_gap(module):
            return ""
        if _gap_of(call_module(module, images, arguments), expected) > allowed_gap(module):
            return "its own forward pass is random (it gave different outputs for the same images)"
    return f"its own forward pass gives other outputs (they differ by {apart:.2g} of the largest)"


def allowed_gap(module: nn.Module) -> float:
    """The largest distance between logits of the module that counts as rounding."""
    return max(_TOLERANCE, 16 * torch.finfo(input_like(module).dtype).eps)


def gap(logits: Tensor, output: object) -> float:
    """The smallest relative difference between a walk's result and the parts of an output that it may be."""
    gaps = [distance(logits, rows) for rows in _rows(output) if rows.shape == logits.shape]
    return min(gaps, default=float("inf"))


def _gap_of(output: object, expected: object) -> float:
    pairs = zip(_rows(output), _rows(expected), strict=True)
    return max((distance(one, other) for one, other in pairs), default=0.0)


def _rows(output: object) -> list[Tensor]:
    """What a walk may end with: the logits, or, for a tower without them, any of its summaries of an image."""
    rows = rows_of(output)
    if isinstance(output, Tensor) or getattr(output, "logits", None) is not None:
        return [] if rows is None else [rows]
    tokens = getattr(output, "last_hidden_state", None)
    first = [tokens[:, 0]] if isinstance(tokens, Tensor) and tokens.ndim == 3 else []
    named = [getattr(output, name, None) for name in ("image_embeds", "pooler_output")]
    return [one for one in (*named, *first, rows) if isinstance(one, Tensor)]


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference relative to the largest number; infinite if non-finite numbers differ."""
    a, b = one.float().cpu(), other.float().cpu()
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    apart = (a - b)[~same].abs().amax()
    size = float(b[b.isfinite()].abs().amax()) if bool(b.isfinite().any()) else 0.0
    return float(apart) / max(size, 1e-30) if bool(apart.isfinite()) else float("inf")


@contextmanager
def _random_state_kept() -> Generator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def _count_calls(module: nn.Module) -> Generator[dict[str, int]]:
    """How often forward hooks and replaced methods of submodules run, by a label for each."""
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        if torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
            stack.enter_context(_calls(module, "forward hooks on all modules", counts))
        for path, part in module.named_modules():
            where = path or "the model itself"
            if part._forward_hooks or part._forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
                stack.enter_context(_calls(part, f"forward hooks on {where}", counts))
            for method in _replaced_methods(part):
                label = f"a replaced {method.name} in {where}"
                counts[label] = 0
                setattr(part, method.name, _count_into(method.function, label, counts))
                stack.callback(setattr, part, method.name, method.function)
        yield counts


@contextmanager
def _calls(part: nn.Module, label: str, counts: dict[str, int]) -> Generator[None]:
    counts[label] = 0

    def count(*_: object) -> None:
        counts[label] += 1

    with hooks(part, ("",), before=count):
        yield


@dataclass(frozen=True)
class _Method:
    name: str
    function: Callable[..., Any]


def _replaced_methods(part: nn.Module) -> Iterator[_Method]:
    """Functions in the object itself that replace a method of its class."""
    for name, value in list(vars(part).items()):
        replaced = isinstance(value, FunctionType | MethodType | partial)
        if replaced and inspect.isfunction(getattr(type(part), name, None)):
            yield _Method(name, cast("Callable[..., Any]", value))


def _count_into(function: Callable[..., Any], label: str, counts: dict[str, int]) -> Callable[..., Any]:
    def counting(*given: object, **named: object) -> object:
        counts[label] += 1
        return function(*given, **named)

    return counting
