"""Wrapped modules: the model inside, if it computes the same."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.catalogue import library_of
from vitscope.models.hooks import hooks

_HELD = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEma": "ema",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    "lightning_fabric.wrappers._FabricModule": "module",
    "lightning.fabric.wrappers._FabricModule": "module",
}
"""Wrappers that return the result of the model inside unchanged, and the attribute that holds it."""
_PROGRAMS = (
    "torch.jit._script.ScriptModule",
    "torch.nn.parallel.distributed.FullyShardedDataParallel",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel",
)
"""Classes whose parts cannot be read."""


def unwrap(module: object, shape: tuple[int, int, int] | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """The model inside, and notes that say so; the module itself if it holds no model that computes the same.

    Compiled modules, parallel ones and averages are replaced by the model inside, compiled parts by their originals.
    Any other class around one module of a known library is replaced by it if, in evaluation mode, it passes pictures on
    unchanged and returns the same logits bit by bit; pictures have ``shape``, or the inner module's own input shape. A
    class that normalises its input or divides its logits is examined as it is. Raises ``UserError`` for anything but a
    module, and for programs whose parts cannot be read.
    """
    held, notes = _unwrap_known(module)
    held = _uncompile(held)
    if library_of(held) is not None:
        return held, notes
    found = list(_of_libraries(held))
    if len(found) != 1:
        return held, notes
    (name, inner), what = found[0], type(held).__name__
    kind = f"{type(inner).__name__} ({name})"
    if _same(held.eval(), inner, shape):
        return inner, (*notes, f"{what} holds a {kind} and gives its logits: only the model inside is examined.")
    return held, (*notes, f"{what} holds a {kind} and computes something else: {what} is examined as it is.")


def _unwrap_known(module: object) -> tuple[nn.Module, tuple[str, ...]]:
    """The model inside wrappers that are known to change nothing."""
    passed: list[str] = []
    while (attribute := _HELD.get(_path(type(module)))) is not None:
        kind = type(module).__name__
        if any(getattr(module, hooks, None) for hooks in ("_forward_hooks", "_forward_pre_hooks")):
            raise UserError(f"The {kind} has forward hooks of its own; remove them, or pass the model inside.")
        passed.append(kind)
        module = getattr(module, attribute)
    program = next((base.__name__ for base in type(module).__mro__ if _path(base) in _PROGRAMS), None)
    if program is not None:
        raise UserError(f"The parts of a {program} cannot be read; pass the torch.nn.Module that it was made from.")
    if not isinstance(module, nn.Module):
        raise UserError(f"A {type(module).__name__} is not a model; give a torch.nn.Module, a name, folder or file.")
    note = f"{type(module).__name__} was wrapped in {' around '.join(passed)} and is examined without it."
    return module, ((note,) if passed else ())


def _uncompile(module: nn.Module) -> nn.Module:
    """The module, or a copy without compiled parts (by wrapper or in place) that shares all else with it."""
    parts = dict(module.named_children())
    plain = {name: _uncompile(_original(part)) for name, part in parts.items()}
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    if not in_place and all(plain[name] is part for name, part in parts.items()):
        return module
    twin = copy.copy(module)
    twin.__dict__["_compiled_call_impl"] = None
    twin.__dict__["_modules"] = dict(module.__dict__["_modules"]) | plain
    return twin


def _original(module: nn.Module) -> nn.Module:
    """The module that a compiled one was made from; any other module unchanged."""
    found: Any = module
    return found._orig_mod if _HELD.get(_path(type(module))) == "_orig_mod" else module


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _of_libraries(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost parts that belong to a known library, with their names."""
    for name, child in module.named_children():
        part, _ = _unwrap_known(child) if _path(type(child)) in _HELD else (child, ())
        if library_of(part) is not None and any(True for _ in part.parameters()):
            yield prefix + name, part
        else:
            yield from _of_libraries(part, f"{prefix}{name}.")


def _same(outer: nn.Module, inner: nn.Module, shape: tuple[int, int, int] | None) -> bool:
    library = library_of(inner)
    assert library is not None, "only models of known libraries are compared"
    weight, reached = next(inner.parameters()), list[object]()

    def reach(_: str, given: tuple[object, ...], named: dict[str, object]) -> None:
        reached.extend((*given, *named.values()))

    try:
        shown = _pictures(shape or library.preprocessing(inner).shape).to(weight)
        with torch.no_grad():
            with hooks(inner, ("",), before=reach):
                found = _logits(outer(shown))
            own = _logits(inner(shown))
    except Exception:  # a user's module may raise anything on pictures that it does not take
        return False
    handed = [one for one in reached if isinstance(one, Tensor)]
    same = found is not None and own is not None and torch.equal(found, own)
    return same and len(handed) == 1 and torch.equal(handed[0], shown)


def _pictures(shape: tuple[int, int, int]) -> Float[Tensor, "batch channels height width"]:
    """Noise in the range of a normalised picture, of pixels from 0 to 1, and of pixels from 0 to 255."""
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([noise[0], noise[1].sigmoid(), 255 * noise[2].sigmoid()])


def _logits(output: object) -> Tensor | None:
    """The logits of an output: its ``logits``, or the first of several; trailing axes of length 1 are dropped."""
    found = getattr(output, "logits", output)
    if isinstance(found, Mapping):
        found = cast("Mapping[object, object]", found).get("logits")
    elif isinstance(found, tuple | list) and found:
        found = cast("Sequence[object]", found)[0]
    if not isinstance(found, Tensor):
        return None
    return found.flatten(1) if found.ndim > 2 and set(found.shape[2:]) == {1} else found
