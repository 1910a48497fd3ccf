"""Heads: the lifted variables of a problem as sums of rank-one atoms, one atom a head."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    r"""The heads of one term: :math:`Z = \sum_h \mathrm{left}_h\, \mathrm{vec}(\mathrm{right}_h)^T`."""

    left: Float[Tensor, "heads left"]
    right: Float[Tensor, "heads inner outputs"]

    def __len__(self) -> int:
        return len(self.left)

    @property
    def half_squares(self) -> float:
        """Half the sum of all squared weights: at least the nuclear norm, and equal to it for compressed heads."""
        left, right = (torch.linalg.vector_norm(part, dtype=torch.float64) for part in (self.left, self.right))
        return float(left.square() + right.square()) / 2

    def lift(self) -> Float[Tensor, "left inner_outputs"]:
        """``Z`` itself."""
        return self.left.T @ self.right.flatten(1)

    def singular_values(self) -> Float64[Tensor, " rank"]:
        """The singular values of ``Z``, largest first. Cost: two QR factorisations of ``heads`` columns; no ``Z``."""
        if len(self) == 0:
            return torch.zeros(0, dtype=torch.float64)
        return torch.linalg.svdvals(self._core()[0])

    def compress(self, tolerance: float = 0.0) -> "Factors":
        """The same ``Z`` with orthogonal, balanced heads, largest first: as few as its rank.

        Singular values up to ``tolerance`` times the largest are dropped, and always those up to its rounding, by the
        usual bound: the longer side of ``Z`` times ``eps``.
        """
        if len(self) == 0:
            return self
        core, left, right = self._core()
        u, values, v = torch.linalg.svd(core)
        rounding = max(self.left.shape[1], self.right[0].numel()) * torch.finfo(self.left.dtype).eps
        kept = values > max(tolerance, rounding) * values[0]
        roots = values[kept].sqrt()
        shorter = min(left.shape[1], right.shape[1])
        u, v = u[:, :shorter][:, kept], v[:shorter][kept]
        return Factors(
            ((left @ u) * roots).T.to(self.left).contiguous(),
            ((right @ v.T) * roots).T.unflatten(1, self.right.shape[1:]).to(self.right).contiguous(),
        )

    def join(self, other: "Factors") -> "Factors":
        """These heads and others."""
        return Factors(torch.cat((self.left, other.left)), torch.cat((self.right, other.right)))

    def _core(self) -> tuple[Tensor, Tensor, Tensor]:
        left, upper_left = torch.linalg.qr(self.left.double().T)
        right, upper_right = torch.linalg.qr(self.right.double().flatten(1).T)
        return upper_left @ upper_right.T, left, right


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of every term of a problem, in the order of its terms."""

    terms: tuple[Factors, ...]

    @property
    def count(self) -> int:
        """Number of heads."""
        return sum(len(factors) for factors in self.terms)

    @property
    def half_squares(self) -> float:
        """Half the sum of all squared weights."""
        return sum(factors.half_squares for factors in self.terms)

    @property
    def balanced_half_squares(self) -> float:
        """Half the sum of all squared weights after each head's left and right weights are scaled to the same norm."""
        return sum(float((f.left.norm(dim=1) * f.right.flatten(1).norm(dim=1)).sum()) for f in self.terms)

    @property
    def nuclear_norm(self) -> float:
        """The sum of the terms' nuclear norms."""
        return sum(float(factors.singular_values().sum()) for factors in self.terms)

    @property
    def vector(self) -> Float[Tensor, " weights"]:
        """All weights in one row, for a solver."""
        return torch.cat([part.flatten() for factors in self.terms for part in (factors.left, factors.right)])

    def with_vector(self, vector: Float[Tensor, " weights"]) -> "Heads":
        """Heads of these shapes, with the weights of ``vector``."""
        found: list[Factors] = []
        at = 0
        for factors in self.terms:
            left, right = factors.left.numel(), factors.right.numel()
            found.append(
                Factors(
                    vector[at : at + left].view_as(factors.left),
                    vector[at + left : at + left + right].view_as(factors.right),
                )
            )
            at += left + right
        return Heads(tuple(found))

    def compress(self, tolerance: float = 0.0) -> "Heads":
        """Every term compressed."""
        return Heads(tuple(factors.compress(tolerance) for factors in self.terms))

    def join(self, others: Sequence[Factors]) -> "Heads":
        """Each term with further heads."""
        return Heads(tuple(mine.join(more) for mine, more in zip(self.terms, others, strict=True)))

    def to(self, dtype: torch.dtype, device: torch.device) -> "Heads":
        """The heads in another precision or on another device."""
        return Heads(tuple(Factors(f.left.to(device, dtype), f.right.to(device, dtype)) for f in self.terms))
