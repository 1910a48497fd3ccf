"""Pictures that differ in one band, and how far activations move with each band: this shows where an entry looks."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vitscope.numerics.precision import to_float64

BANDS = 5
"""The number of horizontal and of vertical bands; odd, so that their edges are not cell edges of usual grids."""
_COARSE = 8
_WIDTHS = (0.0, 1.0, 2.0)
"""Widths of receptive fields beyond the cell, in bands."""

Movement = Float64[np.ndarray, "two bands positions"]
"""How far each position moves with each band: in full, and minus the mean movement of all positions."""


def band_pictures(shape: tuple[int, int, int]) -> Float[Tensor, "pictures channels height width"]:
    """A picture of noise, then copies with one horizontal or vertical band replaced; always the same ones.

    The noise has two scales, so that neither pooling nor small patches lose it.
    """
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape

    def noise() -> Tensor:
        coarse = torch.randn(1, channels, -(-height // _COARSE), -(-width // _COARSE), generator=generator)
        spread = functional.interpolate(coarse, scale_factor=_COARSE)[0, :, :height, :width]
        return 0.7 * (spread + torch.randn(shape, generator=generator))

    first, second = noise(), noise()
    shown = [first]
    for axis, size in ((1, height), (2, width)):
        place = torch.arange(size) * BANDS // size
        for band in range(BANDS):
            inside = (place == band).view(-1, 1) if axis == 1 else place == band
            shown.append(torch.where(inside, second + (0.5 if band % 2 else -0.5), first))
    return torch.stack(shown)


def displacement(values: Float[Tensor, "pictures ..."], channel: int) -> Movement:
    """How far each position moves, as a norm over the axis ``channel``; the remaining axes are the positions.

    The second part subtracts the mean of all positions, because attention spreads a part of every change everywhere.
    """
    change = values[1:].float() - values[:1].float()
    others = [axis for axis in range(1, change.ndim) if axis != channel]
    apart = change - change.mean(others, keepdim=True)
    lengths = [torch.linalg.vector_norm(one, dim=channel).flatten(1) for one in (change, apart)]
    return to_float64(torch.stack(lengths)).cpu().numpy()


def agreement(
    movement: Movement,
    rows: Int[np.ndarray, " positions"],
    columns: Int[np.ndarray, " positions"],
    grid: tuple[int, int],
) -> float:
    """How well the movement fits positions at these rows and columns of a grid: 1 at best, about 0 for any other order.

    The correlation, over positions and bands, of a position's share of movement with the share of its cell that lies
    in the band, both minus their means over positions. Receptive fields of the cell's size, and one or two bands wider,
    are tried, and the best counts; of the two axes, the worse. A row and column of -1 mean no position: such an entry
    is expected to move equally with every band.
    """
    return max(min(_along(one[:BANDS], rows, grid[0]), _along(one[BANDS:], columns, grid[1])) for one in movement)


def difference(movement: Movement, grid: tuple[int, int]) -> float:
    """How differently positions move, in any order: 1 if each sees one cell of the grid, 0 if all see the same.

    The standard deviation over positions of their shares of movement, relative to that of cells; the smaller of the
    two axes. Differences that remain after attention has mixed the positions count too.
    """
    axes = ((movement[0][:BANDS], grid[0]), (movement[0][BANDS:], grid[1]))
    return min((_spread(_shares(one)) / _spread(_fields(count)[0]) for one, count in axes if count > 1), default=0.0)


def _spread(shares: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(_centre(shares)).mean()))


def _shares(movement: NDArray[np.float64]) -> NDArray[np.float64]:
    return movement / np.maximum(movement.sum(0), np.finfo(np.float64).tiny)


def _along(movement: NDArray[np.float64], cells: NDArray[np.int64], count: int) -> float:
    if count == 1:
        return 1.0
    shares = _centre(_shares(movement))
    expected = _centre(np.where(cells < 0, 1 / BANDS, _fields(count)[..., cells]))
    products = (shares * expected).sum((1, 2))
    sizes = np.sqrt(np.square(expected).sum((1, 2)) * np.square(shares).sum())
    return float((products[sizes > 0] / sizes[sizes > 0]).max(initial=-1.0))


def _centre(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - values.mean(-1, keepdims=True)


@lru_cache
def _fields(count: int) -> NDArray[np.float64]:
    """The share of each band in what each cell of an axis sees: its own extent, spread by each of ``_WIDTHS``."""
    bands, cells = np.linspace(0, 1, BANDS + 1), np.linspace(0, 1, count + 1)
    low = np.maximum(bands[:-1, None], cells[None, :-1])
    high = np.minimum(bands[1:, None], cells[None, 1:])
    own = np.maximum(high - low, 0) * count
    apart = np.arange(BANDS)[:, None] - np.arange(BANDS)
    seen = np.stack([np.exp(-0.5 * (apart / max(width, 1e-3)) ** 2) for width in _WIDTHS]) @ own
    return seen / seen.sum(1, keepdims=True)
