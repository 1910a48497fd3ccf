"""A head on its backbone: a whole model, from images to logits, as one torch module."""

import copy
from typing import final

from torch import Tensor, nn

from vitscope.convex.features.extractor import TokenExtractor, token_shape
from vitscope.convex.module import ConvexHead
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject


@final
class Headed(nn.Module):
    """``head(backbone(images))``: images as the subject's preprocessing makes them, to logits (or outputs)."""

    def __init__(self, backbone: TokenExtractor, head: ConvexHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes), or outputs (batch, tokens, outputs)."""
        return self.head(self.backbone(images))


def attach(head: ConvexHead, source: Subject | TokenExtractor) -> Headed:
    """The head on a copy of the backbone whose tokens it was fitted to.

    ``source`` is the extractor of these tokens (``features.extractor``), or a subject whose tokens were taken by the
    default recipe. The copy shares nothing with the subject. Raises ``UserError`` if the tokens do not fit. Cost: three
    forward passes of two images, to find the tokens' shape. Works with ``torch.jit.trace`` and ``torch.onnx.export``
    if the subject's walk does.
    """
    extractor = source if isinstance(source, TokenExtractor) else TokenExtractor(source)
    found = token_shape(extractor.subject, extractor.recipe)
    if (found.tokens, found.dim) != (head.tokens, head.dim):
        raise UserError(
            f"The head was fitted to {head.tokens} tokens of {head.dim} entries, but {extractor.subject.name} gives "
            f"{found.tokens} of {found.dim} with this recipe; give the extractor that made the tokens it was fitted to."
        )
    return Headed(copy.deepcopy(extractor), head).eval()
