"""Pictures that differ in one band, and how far what a model makes of them moves: it tells where an entry looks."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

BANDS = 5
"""Horizontal, and as many vertical bands; odd, so that their edges are not those of the cells of usual grids."""
_COARSE = 8
_WIDTHS = (0.0, 1.0, 2.0)
"""Of receptive fields, in bands, beyond the cell."""


def band_pictures(shape: tuple[int, int, int]) -> Float[Tensor, "pictures channels height width"]:
    """A picture of noise, then it with each horizontal and each vertical band of it replaced; always the same ones.

    The noise is of two scales, so that neither pooling nor small patches lose it.
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


def moved(values: Float[Tensor, "pictures ..."], channel: int) -> Float[Tensor, "two bands positions"]:
    """How far each position moves, over the axis ``channel``, for each band; the remaining axes are the positions.

    First as it is, then less what all positions have in common: attention takes a part of a change everywhere.
    """
    change = values[1:].float() - values[:1].float()
    others = [axis for axis in range(1, change.ndim) if axis != channel]
    apart = change - change.mean(others, keepdim=True)
    lengths = [torch.linalg.vector_norm(one, dim=channel).flatten(1) for one in (change, apart)]
    return torch.stack(lengths).cpu().double()


def agreement(
    movement: Float[Tensor, "two bands positions"], rows: Tensor, columns: Tensor, grid: tuple[int, int]
) -> float:
    """How well the movement fits positions at these rows and columns of a grid: 1 at best, about 0 for any other order.

    The correlation, over positions and bands, of a position's share of movement with the share of its cell that lies
    in the band, both less their means over positions; for a receptive field of the cell's size, or one or two bands
    wider, whichever fits best; the worse of the two axes.
    """
    return max(
        min(_along(one[:BANDS], rows, grid[0]), _along(one[BANDS:], columns, grid[1])) for one in movement.unbind(0)
    )


def _along(movement: Float[Tensor, "bands positions"], cells: Tensor, count: int) -> float:
    if count == 1:
        return 1.0
    shares = _centred(movement / movement.sum(0, keepdim=True).clamp(min=torch.finfo(movement.dtype).tiny))
    expected = _centred(_fields(count)[..., cells])
    products = torch.einsum("bp,wbp->w", shares, expected)
    sizes = torch.linalg.vector_norm(expected, dim=(1, 2)) * torch.linalg.vector_norm(shares)
    return float(torch.where(sizes > 0, products / sizes, 0.0).amax())


def _centred(values: Float[Tensor, "... positions"]) -> Float[Tensor, "... positions"]:
    return values - values.mean(-1, keepdim=True)


@lru_cache
def _fields(count: int) -> Float[Tensor, "widths bands cells"]:
    """The share of each band in what each cell of an axis sees: its own extent, spread by so many bands."""
    bands, cells = (torch.linspace(0, 1, number + 1, dtype=torch.float64) for number in (BANDS, count))
    low = torch.maximum(bands[:-1, None], cells[None, :-1])
    high = torch.minimum(bands[1:, None], cells[None, 1:])
    own = (high - low).clamp(min=0) * count
    place = torch.arange(BANDS, dtype=torch.float64)
    spread = torch.stack([torch.exp(-0.5 * ((place[:, None] - place) / max(width, 1e-3)) ** 2) for width in _WIDTHS])
    seen = spread @ own
    return seen / seen.sum(1, keepdim=True)
