"""Fourier neural operator heads: a global convolution over tokens."""

from dataclasses import dataclass

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexFnoClassifier")
@dataclass(kw_only=True, eq=False, repr=False)
class ConvexFnoClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(\mathrm{circ}(X) u_h) v_h^T`, by a convex program.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    def block(self) -> AbstractBlock:
        """The Fourier block."""
        return Fno(self.grid)


@ESTIMATORS.add("ConvexFnoRegressor")
@dataclass(kw_only=True, eq=False, repr=False)
class ConvexFnoRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(\mathrm{circ}(X) u_h) v_h^T` of every token, or their mean, by a convex program.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    def block(self) -> AbstractBlock:
        """The Fourier block."""
        return Fno(self.grid)
