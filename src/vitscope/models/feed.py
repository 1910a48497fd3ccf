"""The input of a module: pictures on its own device, in its own precision."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vitscope.measurement.errors import UserError
from vitscope.models.stream import Stream
from vitscope.models.subject import Composition

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def module_input(module: nn.Module, images: Float[Tensor, "batch channels height width"]) -> Tensor:
    """A copy of the images on the module's device and in its type; the module may write into it."""
    like = input_like(module)
    return images.to(like.device, like.dtype, copy=True)


def zero_image(module: nn.Module, shape: tuple[int, int, int]) -> Float[Tensor, "1 channels height width"]:
    """One image of zeros of ``shape``, on the module's device and in its type."""
    return module_input(module, torch.zeros(1, *shape))


def input_like(module: nn.Module) -> Tensor:
    """A tensor on the device and of the type that the module's input must have.

    The type is that of the first linear or convolutional layer's weights; norms often have higher precision. Without
    such a layer it is that of the first floating-point weight or buffer, and float32 if there is none.
    """
    return next(_real(module), torch.empty(0))


def _real(module: nn.Module) -> Iterator[Tensor]:
    layers = (part.weight for part in module.modules() if isinstance(part, _LAYERS))
    for found in (layers, module.parameters(), module.buffers()):
        yield from (tensor for tensor in found if tensor.is_floating_point())


def refuse_unmade(module: nn.Module) -> None:
    """Raise ``UserError`` if a weight has no numbers: it is on the device ``meta``, or its lazy layer never ran."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        more = f" and {len(lazy) - 1} more weights" if len(lazy) > 1 else ""
        raise UserError(
            f"{type(module).__name__} has no numbers yet in {lazy[0]}{more}, because its lazy layers never ran: "
            "run it once on a batch, and load it again."
        )
    for name, tensor in tensors:
        if tensor.is_meta:
            raise UserError(
                f"{type(module).__name__} has no numbers in {name}, which is on the device 'meta': "
                "load its weights, or make it on a real device."
            )


def quantised_layers(module: nn.Module) -> tuple[str, ...]:
    """The submodules with quantised weights, which are not parameters and have no gradient."""
    return tuple(
        name
        for name, part in module.named_modules()
        if any(package in type(part).__module__ for package in ("nn.quantized", "torchao.quantization"))
    )


@final
@dataclass(frozen=True)
class FedStem:
    """``stem`` on a copy of the images in the module's precision; two with the same module and stem are equal."""

    module: nn.Module
    stem: Callable[[Tensor], Stream]

    def __call__(self, images: Tensor) -> Stream:
        """The stream after the stem."""
        return self.stem(module_input(self.module, images))


def in_own_precision(module: nn.Module, anatomy: Composition) -> Composition:
    """The anatomy with images converted to the module's own precision, whatever theirs is."""
    return replace(anatomy, stem=FedStem(module, anatomy.stem))
