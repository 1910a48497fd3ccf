"""What the token models of transformers share: the pre-norm block of ViT, DeiT and ViTMAE, and the grid of patches."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import Tensor, nn
from transformers.models.deit.modeling_deit import DeiTLayer
from transformers.models.vit.modeling_vit import ViTLayer
from transformers.models.vit_mae.modeling_vit_mae import ViTMAELayer

from vitscope.measurement.errors import UserError
from vitscope.models.transformers.attention import global_heads
from vitscope.models.unit import AbstractUnit, Place, Residual, ResidualAttention, UnitKind

M = TypeVar("M", bound=nn.Module)


def expect(module: nn.Module, kinds: tuple[type[M], ...], name: str) -> M:
    """The module itself, if it is of one of the ``kinds``; otherwise ``UserError`` naming what was found."""
    for kind in kinds:
        if isinstance(module, kind):
            return module
    readable = " or ".join(kind.__name__ for kind in kinds)
    raise UserError(f"{name} is a {type(module).__name__}; only a {readable} can be read there.")


def patch_grid(images: Tensor, patch_size: Iterable[int]) -> tuple[int, int]:
    """Rows and columns of the patches that a convolution of stride ``patch_size`` takes from the images."""
    height, width = patch_size
    return images.shape[2] // height, images.shape[3] // width


def block_units(layers: Iterable[nn.Module], path: str) -> Iterator[AbstractUnit]:
    """The attention and MLP units of the blocks at ``path``."""
    for i, layer in enumerate(layers):
        name = f"{path}.{i}"
        block = expect(layer, (ViTLayer, DeiTLayer, ViTMAELayer), name)
        attention = Place(UnitKind.ATTENTION, f"{name}.attention", 0, i)
        heads = global_heads(block.attention, attention.name)
        yield ResidualAttention(attention, (block.layernorm_before,), heads, (block.dropout,))
        mlp = Place(UnitKind.MLP, f"{name}.mlp", 0, i)
        yield Residual(mlp, (block.layernorm_after, block.mlp, block.dropout))
