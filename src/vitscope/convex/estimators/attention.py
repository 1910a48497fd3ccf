"""Self-attention heads."""

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.attention import Attention
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexAttentionClassifier")
class ConvexAttentionClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(X U_h X^T) X V_h` of an image, by a convex program.

    >>> head = ConvexAttentionClassifier(beta=1e-3).fit(tokens, labels)  # tokens: (images, tokens, dim)
    >>> head.certificate_.relative_gap, head.to_module()

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    def block(self) -> AbstractBlock:
        """The attention block."""
        return Attention()


@ESTIMATORS.add("ConvexAttentionRegressor")
class ConvexAttentionRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(X U_h X^T) X V_h` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    def block(self) -> AbstractBlock:
        """The attention block."""
        return Attention()
