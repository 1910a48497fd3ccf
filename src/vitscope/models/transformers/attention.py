"""The attention modules of transformers' vision models: one projection each for queries, keys and values."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.models.deit.modeling_deit import DeiTAttention
from transformers.models.dinov2.modeling_dinov2 import Dinov2Attention
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersAttention
from transformers.models.vit.modeling_vit import ViTAttention
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEAttention

from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream
from vitscope.models.unit import AbstractAttentionHeads


def split(values: Float[Tensor, "*batch tokens dim"], heads: int) -> Float[Tensor, "*batch heads tokens width"]:
    """A projection split into its heads; a view."""
    return values.unflatten(-1, (heads, -1)).transpose(-2, -3)


@dataclass(frozen=True)
class SeparateHeads(AbstractAttentionHeads):
    """Global attention whose queries, keys, values and output have a projection each."""

    heeds_kept = True
    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    heads: int
    scale: float

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        tokens = global_tokens(values.shape[1], values.device)
        return Attention(
            queries=split(self.query(values), self.heads)[:, None],
            keys=split(self.key(values), self.heads)[:, None],
            values=split(self.value(values), self.heads)[:, None],
            query_tokens=tokens,
            key_tokens=tokens,
            grid=stream.grid,
            prefix=stream.prefix,
            scale=self.scale,
        )

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined, projected."""
        del attention
        return self.output(join_heads(context))


def global_heads(module: nn.Module, name: str) -> SeparateHeads:
    """The heads of a global attention module. Raises ``UserError`` if its class cannot be read."""
    match module:
        case ViTAttention() | DeiTAttention() | ViTMAEAttention() | Dinov2Attention() | Dinov2WithRegistersAttention():
            output, heads, scale = module.o_proj, module.num_attention_heads, module.scaling
        case CLIPAttention():
            output, heads, scale = module.out_proj, module.num_heads, module.scale
        case _:
            raise UserError(f"{name} is a {type(module).__name__}, an attention that cannot be read.")
    return SeparateHeads(module.q_proj, module.k_proj, module.v_proj, output, heads, scale)
