"""Linear heads: weights on the mean token."""

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexLinearClassifier")
class ConvexLinearClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\sum_h \sigma(\bar x^T u_h) v_h^T` of an image's mean token, by a convex program.

    With ``activation="linear"`` it is multinomial logistic regression under the nuclear norm. Parameters and attributes
    are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    def block(self) -> AbstractBlock:
        """The linear block."""
        return Linear()


@ESTIMATORS.add("ConvexLinearRegressor")
class ConvexLinearRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(\bar x^T u_h) v_h^T` of an image's mean token, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    def block(self) -> AbstractBlock:
        """The linear block."""
        return Linear()
