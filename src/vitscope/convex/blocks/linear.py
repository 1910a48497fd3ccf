"""The linear head: the mean token, or every token separately, times weights."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, FeatureLens, Sizes
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.layer import AbstractNeurons


@final
class LinearHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(\bar x^T w_{1h})\, w_{2h}^T` of the mean token, or of every token."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``mean(X) w_1``: batch, heads, 1; or ``X w_1``: batch, heads, tokens."""
        seen = tokens.mean(1, keepdim=True) if self.pooled else tokens
        return (seen @ weights.transpose(0, 1)).transpose(1, 2)


@BLOCKS.add("linear")
@dataclass(frozen=True)
class Linear(AbstractBlock):
    r"""Weights on the mean token of an image.

    .. math:: f(X) = \sum_h \sigma(\bar x^T u_h) v_h^T

    With the linear activation this is linear regression or multinomial logistic regression under the nuclear norm; with
    a gate it is a two-layer network on pooled features. For token-wise outputs it is the MLP block. Source:
    Sahiner et al. 2022, section 2 (the baseline of their experiments).
    """

    name = "linear"
    layer = LinearHeads
    mixes = False

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexLinearClassifier, ConvexLinearRegressor

    of_mean = True

    def left_size(self, sizes: Sizes) -> int:
        """``dim``."""
        return sizes.dim

    def inner_size(self, sizes: Sizes) -> int:
        """1: a row is one number."""
        return 1

    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """``mean(X) u``, or ``X u`` for token-wise outputs."""
        return (_pool_tokens(tokens, pooled) @ left.T).transpose(1, 2)

    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """The sum of the tokens, weighted by the activity."""
        return activity.transpose(0, 1).flatten(1) @ _pool_tokens(tokens, pooled).flatten(0, 1)

    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """The activity itself."""
        return activity.unsqueeze(-1)

    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The rows themselves."""
        return rows.squeeze(-1)

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """The features of an image under a gate, computed once."""
        features = _pool_tokens(tokens, pooled)
        if gate is not None:
            features = features * self.passes(tokens, gate, pooled).unsqueeze(-1)
        return FeatureLens(features)


def _pool_tokens(tokens: Tensor, pooled: bool) -> Tensor:
    return tokens.mean(1, keepdim=True) if pooled and tokens.shape[1] > 1 else tokens


class ConvexLinearClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\sum_h \sigma(\bar x^T u_h) v_h^T` of an image's mean token, by a convex program.

    With ``activation="linear"`` it is multinomial logistic regression under the nuclear norm. Parameters and attributes
    are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    of = Linear


class ConvexLinearRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(\bar x^T u_h) v_h^T` of an image's mean token, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    of = Linear
