"""Block FNO heads: global convolutions within groups of entries that do not meet."""

from dataclasses import dataclass

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.fno import BlockFno
from vitscope.convex.estimator import ESTIMATORS, AbstractConvexClassifier, AbstractConvexRegressor


@ESTIMATORS.add("ConvexBlockFnoClassifier")
@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBlockFnoClassifier(AbstractConvexClassifier):
    r"""As :class:`ConvexFnoClassifier`, with entries and classes split into ``blocks`` groups.

    A class is judged by its own group of entries only. Other parameters and attributes are those of
    :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    blocks: int = 2
    """Number of groups, at most the entries of a token and the number of classes."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    def block(self) -> AbstractBlock:
        """The block Fourier block."""
        return BlockFno(self.blocks, self.grid)


@ESTIMATORS.add("ConvexBlockFnoRegressor")
@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBlockFnoRegressor(AbstractConvexRegressor):
    r"""As :class:`ConvexFnoRegressor`, with entries and outputs split into ``blocks`` groups.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    blocks: int = 2
    """Number of groups, at most the entries of a token and the number of outputs."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    def block(self) -> AbstractBlock:
        """The block Fourier block."""
        return BlockFno(self.blocks, self.grid)
