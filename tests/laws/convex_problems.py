"""Small problems of every block, activation and loss, and heads of them."""

import torch

from vitscope.convex.block import BLOCKS, Sizes
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.runs.registry import import_all

import_all("vitscope.convex.blocks")
IMAGES, TOKENS, DIM = 6, 3, 3
LOSSES = ("squared token-wise", "squared pooled", "cross-entropy")


def problem(block: str, gates: int | None, loss: str, *, beta: float = 0.02, seed: int = 0, **options) -> Problem:
    random = torch.Generator().manual_seed(seed)
    pooled = loss != "squared token-wise"
    tokens = torch.randn(IMAGES, TOKENS, DIM, generator=random, dtype=torch.float64) / DIM**0.5
    weights = torch.rand(IMAGES, generator=random, dtype=torch.float64) + 0.5
    weights /= weights.mean()
    if loss == "cross-entropy":
        measured = CrossEntropy(torch.arange(IMAGES) % 3, weights, 3)
    else:
        rows = 1 if pooled else TOKENS
        measured = Squared(torch.randn(IMAGES, rows, 3, generator=random, dtype=torch.float64), weights)
    made = BLOCKS[block]()
    each = terms(made, Sizes(TOKENS, DIM, 3), gates, random, torch.float64)
    settings_ = {"pooled": pooled, "dtype": torch.float64, "chunk": 3, **options}
    return Problem(tokens, measured, made, each, beta, **settings_)


def some_heads(given_: Problem, count: int, scale: float, seed: int) -> Heads:
    random = torch.Generator().manual_seed(seed)
    found = []
    for term in given_.terms:
        left, inner, outputs = given_.shape(term)
        sides = ((count, left), (count, inner, outputs))
        found.append(Factors(*(scale * torch.randn(side, generator=random, dtype=torch.float64) for side in sides)))
    return Heads(tuple(found))
