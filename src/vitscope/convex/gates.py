"""Gates: which linear pieces of the activation a convex head is made of."""

from itertools import pairwise
from typing import Literal, get_args

import torch

from vitscope.convex.block import AbstractBlock, Sizes, Term
from vitscope.measurement.errors import UserError

Activation = Literal["linear", "gated-relu", "relu"]
"""The activation between a block's two maps."""


def terms(
    block: AbstractBlock, sizes: Sizes, gates: int | None, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Term, ...]:
    """The terms of a head: one for each gate and group, gates drawn from a normal distribution.

    ``gates`` None means the linear activation. Directions are uniform, as in Mishkin, Sahiner and Pilanci
    (2022), Fast Convex Optimization for Two-Layer ReLU Networks.
    """
    if gates is not None and gates < 1:
        raise UserError(f"gates is {gates}; give 1 or more.")
    if block.groups() > min(sizes.dim, sizes.outputs):
        raise UserError(
            f"The head has {block.groups()} groups, but a token has {sizes.dim} entries and there are {sizes.outputs} "
            f"outputs; give at most {min(sizes.dim, sizes.outputs)} groups."
        )
    found: list[Term] = []
    ins, outs = split(sizes.dim, block.groups()), split(sizes.outputs, block.groups())
    for _ in range(gates or 1):
        for entries, outputs in zip(ins, outs, strict=True):
            left = block.left_size(Sizes(sizes.tokens, entries.stop - entries.start, outputs.stop - outputs.start))
            vector = torch.randn(left, generator=generator, dtype=torch.float64).to(dtype) if gates else None
            found.append(Term(vector, entries, outputs))
    return tuple(found)


def split(count: int, groups: int) -> tuple[slice, ...]:
    """Contiguous groups of nearly equal size; if ``groups`` does not divide ``count``, the first ones hold one more."""
    size, more = divmod(count, groups)
    bounds = [0]
    for group in range(groups):
        bounds.append(bounds[-1] + size + (group < more))
    return tuple(slice(start, stop) for start, stop in pairwise(bounds))


def check_activation(name: str) -> Activation:
    """The activation of that name."""
    for known in get_args(Activation):
        if name == known:
            return known
    raise UserError(f"There is no activation {name!r}; there are: {', '.join(get_args(Activation))}.")
