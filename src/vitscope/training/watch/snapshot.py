"""The live module at a step, copied so that nothing done to the copy reaches it."""

import copy
import random
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Subject

_SHARDED = frozenset({"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"})
"""Classes of modules whose weights are spread over processes, so that one process alone cannot run them."""

SubjectMaker = Callable[[nn.Module], Subject]
"""Makes a subject from a copy of the live module in evaluation mode."""


@final
@dataclass(frozen=True)
class AsSubject:
    """Makes a copied module a subject with :func:`vitscope.models.load.load`, on the module's device.

    ``input`` says how the training turns a picture into the model's input, ``classes`` names the outputs; ``units``
    and ``name`` are as for ``load``. Fields that are None follow from the module if its library is known.
    """

    input: PixelInput | None = None
    classes: Sequence[str] | None = None
    units: Sequence[str] | None = None
    name: str | None = None

    def __call__(self, module: nn.Module) -> Subject:
        """The module as a subject."""
        device = str(device_of(module))
        return load(module, input=self.input, units=self.units, classes=self.classes, name=self.name, device=device)


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's first weight."""
    return next(iter(module.parameters()), torch.empty(0)).device


@contextmanager
def keep_random_states() -> Generator[None]:
    """Restore the random states of Python, NumPy and torch afterwards, on the CPU and every CUDA device."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def strip_wrappers(module: nn.Module) -> nn.Module:
    """The module without the wrappers of ``torch.compile`` and data parallelism."""
    while True:
        parts = dict(module.named_children())
        if "_orig_mod" in parts:
            module = parts["_orig_mod"]
        elif isinstance(module, DistributedDataParallel | DataParallel):
            module = cast(nn.Module, module.module)
        else:
            return module


def snapshot(module: nn.Module) -> nn.Module:
    """A copy of the live module in evaluation mode and float32, with its own weights and buffers.

    The live module is only read. Hooks are left out of the copy, since they belong to other observers of the training;
    those of ``torch.nn.utils`` (pruning, weight and spectral norm), which compute the weights, stay. Cost: a second
    copy of the weights, on their device. Raises ``UserError`` for a module that cannot be copied or has weights that
    are not finite.
    """
    module = strip_wrappers(module)
    _refuse_uncopyable(module)
    _refuse_not_finite(module)
    memo: dict[int, Any] = {}
    for original, replacement in _replacements(module):
        memo[id(original)] = replacement
    try:
        copied = copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"{type(module).__name__} cannot be copied ({error}); watch only the submodule that is the model."
        ) from error
    return copied.eval().float()


def _replacements(module: nn.Module) -> Iterator[tuple[object, object]]:
    """The objects to replace in the copy, with their replacements: hooks, and tensors that result from operations."""
    for part in module.modules():
        values = vars(part)
        for name, value in values.items():
            if name.endswith("_hooks") and isinstance(value, dict):
                hooks = cast("dict[Any, Any]", value)
                yield hooks, type(hooks)((key, hook) for key, hook in hooks.items() if _makes_weights(hook))
        for value in [*values.values(), *part.buffers(recurse=False)]:
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value, value.detach().clone()


def _makes_weights(hook: object) -> bool:
    return any(base.__module__.startswith("torch.nn.utils") for base in type(hook).__mro__)


def _refuse_uncopyable(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if sharded := _SHARDED & {base.__name__ for base in type(part).__mro__}:
            raise UserError(
                f"The weights are spread over processes ({min(sharded)}), and one process alone cannot run the model; "
                "measure the checkpoints that the training saves."
            )
        if isinstance(vars(part).get("forward"), types.FunctionType):
            raise UserError(
                f"The forward of {name or type(part).__name__} was replaced by a function, which a copy would share "
                "with the live module; override forward in a class."
            )


def _refuse_not_finite(module: nn.Module) -> None:
    named = [(name, weight) for name, weight in module.named_parameters() if weight.is_floating_point()]
    if not named or bool(torch.stack([weight.detach().isfinite().all() for _, weight in named]).all()):
        return
    bad = next(name for name, weight in named if not weight.isfinite().all())
    raise UserError(f"The weights are not finite ({bad}): the training has diverged; lower the learning rate.")
