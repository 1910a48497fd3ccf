"""timm's plain multi-head attention module, split into its projections."""

from dataclasses import dataclass

from jaxtyping import Float
from timm.layers.attention import Attention as TimmAttention
from torch import Tensor

from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream
from vitscope.models.unit import AbstractAttentionHeads


@dataclass(frozen=True)
class PlainHeads(AbstractAttentionHeads):
    """``timm.layers.Attention``: packed projections, optional query-key norm, context norm and gate."""

    heeds_kept = True
    module: TimmAttention

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        module = self.module
        batch, count, _ = values.shape
        packed = module.qkv(values).reshape(batch, 1, count, 3, module.num_heads, module.head_dim)
        queries, keys, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        return Attention(
            queries=module.q_norm(queries),
            keys=module.k_norm(keys),
            values=value,
            query_tokens=global_tokens(count, values.device),
            key_tokens=global_tokens(count, values.device),
            grid=stream.grid,
            prefix=stream.prefix,
            scale=module.scale,
            gate=None if module.gate is None else module.gate(values).sigmoid(),
        )

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined, normed, gated, projected."""
        values = self.module.norm(join_heads(context))
        if attention.gate is not None:
            values = values * attention.gate
        return self.module.proj_drop(self.module.proj(values))
