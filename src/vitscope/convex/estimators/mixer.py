"""MLP-mixer heads: any linear mixing of tokens."""

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.mixer import Mixer
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexMixerClassifier")
class ConvexMixerClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(U_h X) V_h` of an image, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    def block(self) -> AbstractBlock:
        """The mixer block."""
        return Mixer()


@ESTIMATORS.add("ConvexMixerRegressor")
class ConvexMixerRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(U_h X) V_h` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    def block(self) -> AbstractBlock:
        """The mixer block."""
        return Mixer()
