"""Which weights a training changes, and how fast: frozen parts, decay, learning rates that fall towards the stem."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.models.catalogue import library_of

ALL_BUT_HEAD = "all-but-head"


def freeze(module: nn.Module, patterns: Sequence[str], head: Sequence[str]) -> None:
    """Freeze the parameters whose names fit a pattern; ``all-but-head`` means all that are not in ``head``.

    Raises ``UserError`` for a pattern that fits no name, and if nothing is left to train.
    """
    names = dict(module.named_parameters())
    for pattern in patterns:
        if pattern == ALL_BUT_HEAD:
            found = [name for name in names if name not in head]
        else:
            found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(f"freeze is {pattern!r}, which fits no weight of the model{nearest(pattern, list(names))}.")
        for name in found:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise UserError(f"freeze ({', '.join(patterns)}) leaves no weight to train.")


def set_training(module: nn.Module) -> None:
    """Set training mode, except for parts whose own weights are all frozen: their batch statistics stay fixed too."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.training = False


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Set evaluation mode, and afterwards restore each part's own mode."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def parameter_groups(module: nn.Module, decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    r"""The trained weights as an optimiser's groups, each with its ``scale`` of the learning rate.

    Matrices and kernels decay; everything else (biases, norms, tokens, positions) does not. A layer i below the head
    has the rate :math:`\eta\,d^i` with the ``layer_decay`` d (Bao et al. 2022). The model's library, such as timm,
    defines the layers. Raises ``UserError`` if no known library does and d is not 1.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    layers = dict.fromkeys((name for name, _ in named), 0) if layer_decay == 1 else _layers(module)
    top = max(layers.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {
        (layer, decays): [] for layer in sorted({layers[name] for name, _ in named}) for decays in (True, False)
    }
    for name, parameter in named:
        groups[layers[name], name.endswith("weight") and parameter.ndim >= 2].append(parameter)
    return [
        {"params": held, "weight_decay": decay if decays else 0.0, "scale": layer_decay ** (top - layer)}
        for (layer, decays), held in groups.items()
        if held
    ]


def _layers(module: nn.Module) -> dict[str, int]:
    library = library_of(module)
    if library is None:
        raise UserError(f"The layers of {type(module).__name__} are not known here; leave layer_decay out.")
    return library.layers(module)
