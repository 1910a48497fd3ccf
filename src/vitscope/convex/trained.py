"""A trained head: everything that its outputs depend on."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import AbstractBlock, Sizes, Term
from vitscope.convex.heads import Heads
from vitscope.convex.loss import Squared
from vitscope.convex.problem import Problem
from vitscope.convex.tokens import Standardisation, Tokens, TokenSource


@dataclass(frozen=True, eq=False)
class Member:
    """One draw of gates and the heads fitted under them."""

    terms: tuple[Term, ...]
    heads: Heads


@dataclass(frozen=True, eq=False)
class Trained:
    r"""A trained head: :math:`f(X) = \mathrm{offset} + \frac1M \sum_m f_m((X - \mathrm{mean})\,\mathrm{scale})`.

    ``members`` are the draws of an ensemble, one otherwise. ``offset`` is what every row of outputs starts from; its
    precision is that of the heads.
    """

    block: AbstractBlock
    sizes: Sizes
    pooled: bool
    relu: bool
    standardisation: Standardisation
    offset: Float[Tensor, " outputs"]
    members: tuple[Member, ...]

    def start(self, member: int, problem: Problem) -> Heads | None:
        """A member's heads under every gate that it shares with a problem, to start from; None if they share none."""
        same = (self.block, self.sizes, self.relu) == (problem.block, problem.sizes, problem.relu)
        if not same or member >= len(self.members):
            return None
        known = list(zip(self.members[member].terms, self.members[member].heads.terms, strict=True))
        found = [next((factors for other, factors in known if _same(other, term)), None) for term in problem.terms]
        if all(factors is None for factors in found):
            return None
        empty = problem.no_heads().to(self.offset.dtype, torch.device("cpu")).terms
        return Heads(tuple(none if mine is None else mine for mine, none in zip(found, empty, strict=True)))

    def outputs(self, source: TokenSource, device: torch.device, memory: int) -> Float[Tensor, "images rows outputs"]:
        """The outputs of these images, on the CPU. Cost: one pass for each member."""
        tokens = Tokens(source, self.standardisation)
        dtype, rows = self.offset.dtype, 1 if self.pooled else self.sizes.tokens
        no_targets = self.offset.new_zeros(()).expand(len(tokens), rows, self.sizes.outputs)
        loss = Squared(no_targets, no_targets[:, 0, 0])
        total = self.offset.expand(len(tokens), rows, -1).clone()
        for member in self.members:
            problem = Problem(
                tokens, loss, self.block, member.terms, 0.0, self.pooled, self.relu, dtype, device, memory=memory
            )
            total += problem.outputs(member.heads.to(dtype, device)).cpu() / len(self.members)
        return total


def make_trained(problem: Problem, heads: Heads) -> Trained:
    """The head of a solution, if the problem standardises its tokens as it reads them; it has no offset."""
    if not isinstance(problem.tokens, Tokens):
        raise TypeError("Only a problem that knows its tokens' standardisation makes a head for other tokens.")
    cpu = torch.device("cpu")
    return Trained(
        problem.block,
        problem.sizes,
        problem.pooled,
        problem.relu,
        problem.tokens.standardisation,
        torch.zeros(problem.sizes.outputs, dtype=problem.dtype),
        (Member(problem.terms, heads.to(problem.dtype, cpu)),),
    )


def _same(one: Term, other: Term) -> bool:
    """Whether two terms are under the same gate and of the same group."""
    if (one.entries, one.outputs) != (other.entries, other.outputs):
        return False
    if one.vector is None or other.vector is None:
        return one.vector is other.vector
    return torch.equal(one.vector, other.vector)
