"""MLP heads: every token by itself through hidden neurons."""

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexMlpClassifier")
class ConvexMlpClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(X u_h) v_h^T` of an image, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    def block(self) -> AbstractBlock:
        """The MLP block."""
        return Mlp()


@ESTIMATORS.add("ConvexMlpRegressor")
class ConvexMlpRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(X u_h) v_h^T` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    def block(self) -> AbstractBlock:
        """The MLP block."""
        return Mlp()
