"""The MLP head: every token separately through hidden neurons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractJoint, AbstractLens, FeatureLens, Sizes
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.layer import AbstractNeurons


@final
class MlpHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(X w_{1h})\, w_{2h}^T`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``X w_1``: batch, heads, tokens."""
        return (tokens @ weights.transpose(0, 1)).transpose(1, 2)


@BLOCKS.add("mlp")
@dataclass(frozen=True)
class Mlp(AbstractBlock):
    r"""A two-layer network on each token separately, with gates for each token.

    .. math:: f(X) = \sum_h \sigma(X u_h) v_h^T

    Lifted, :math:`Z = \sum_h u_h v_h^T` is ``dim x outputs``. Pooled with the linear activation it equals the linear
    block. Source: Sahiner et al. 2022, section 2; Burer-Monteiro paper (2024), equations (1) to (6).
    """

    name = "mlp"
    layer = MlpHeads
    mixes = False

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexMlpClassifier, ConvexMlpRegressor

    def left_size(self, sizes: Sizes) -> int:
        """``dim``."""
        return sizes.dim

    def inner_size(self, sizes: Sizes) -> int:
        """1: a row is one number."""
        return 1

    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """``X u``."""
        return (tokens @ left.T).transpose(1, 2)

    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """The sum of the tokens, weighted by the activity."""
        return activity.transpose(0, 1).flatten(1) @ tokens.flatten(0, 1)

    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """The activity of each token, or its mean."""
        return (activity.mean(-1, keepdim=True) if pooled else activity).unsqueeze(-1)

    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The rows themselves, or an equal share for each token."""
        count = tokens.shape[1]
        return rows.squeeze(-1).expand(-1, -1, count) / count if pooled else rows.squeeze(-1)

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """The gated tokens, or their mean, computed once."""
        features = tokens if gate is None else tokens * self.passes(tokens, gate, pooled).unsqueeze(-1)
        return FeatureLens(features.mean(1, keepdim=True) if pooled else features)

    def joint(
        self, tokens: Float[Tensor, "images tokens dim"], gates: Sequence[Float[Tensor, " left"]], pooled: bool
    ) -> AbstractJoint | None:
        """If a row has one token, the gates share its product with all weights: gated tokens are never formed."""
        if pooled and tokens.shape[1] > 1:
            return None
        masks = torch.stack([self.passes(tokens, gate, pooled).flatten() for gate in gates], 1)
        return _SharedProduct(tokens, masks.to(tokens))


@dataclass(frozen=True, eq=False)
class _SharedProduct(AbstractJoint):
    """Tokens times all weights, then gated: ``terms dim outputs`` multiply-adds a token, and little memory to read."""

    tokens: Float[Tensor, "images tokens dim"]
    masks: Float[Tensor, "images*tokens terms"]

    def outputs(self, lifted: Float[Tensor, "terms left right"]) -> Float[Tensor, "images rows outputs"]:
        product = self.tokens.flatten(0, 1) @ lifted.permute(1, 2, 0).flatten(1)
        gated = product.unflatten(1, (lifted.shape[2], -1)) * self.masks.unsqueeze(1)
        return gated.sum(2).unflatten(0, self.tokens.shape[:2])

    def images(self, residual: Float[Tensor, "images rows outputs"]) -> Float[Tensor, "terms left right"]:
        gated = residual.flatten(0, 1).unsqueeze(2) * self.masks.unsqueeze(1)
        product = self.tokens.flatten(0, 1).T @ gated.flatten(1)
        return product.unflatten(1, gated.shape[1:]).permute(2, 0, 1)


class ConvexMlpClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(X u_h) v_h^T` of an image, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    of = Mlp


class ConvexMlpRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(X u_h) v_h^T` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    of = Mlp
