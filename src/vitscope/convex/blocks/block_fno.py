"""The block Fourier head: global convolutions within groups of entries that do not meet."""

from dataclasses import dataclass

from vitscope.convex.block import BLOCKS
from vitscope.convex.blocks.fno import AbstractFourier
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.measurement.errors import UserError


@BLOCKS.add("block-fno")
@dataclass(frozen=True)
class BlockFno(AbstractFourier):
    r"""A block FNO (B-FNO): the entries of a token, and the outputs, split into groups that do not meet.

    .. math:: f(X) = [\,\ldots, \sum_h \sigma(\mathrm{circ}(X^{(b)}) u_{bh}) v_{bh}^T, \ldots\,]

    Each group's ``Z`` is ``tokens dim/B x outputs/B``; if a number does not divide, the first groups get one more.
    Source: Sahiner et al. 2022, section 3; Guibas et al. 2022 (adaptive Fourier neural operators).
    """

    blocks: int = 2
    """Number of groups."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    name = "block-fno"

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexBlockFnoClassifier, ConvexBlockFnoRegressor

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"blocks is {self.blocks}; give 1 or more.")

    def groups(self) -> int:
        """The number of blocks."""
        return self.blocks


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBlockFnoClassifier(AbstractConvexClassifier):
    r"""As :class:`ConvexFnoClassifier`, with entries and classes split into ``blocks`` groups.

    A class depends only on its own group of entries. Other parameters and attributes are those of
    :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    blocks: int = 2
    """Number of groups, at most the entries of a token and the number of classes."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    of = BlockFno


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBlockFnoRegressor(AbstractConvexRegressor):
    r"""As :class:`ConvexFnoRegressor`, with entries and outputs split into ``blocks`` groups.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    blocks: int = 2
    """Number of groups, at most the entries of a token and the number of outputs."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    of = BlockFno
