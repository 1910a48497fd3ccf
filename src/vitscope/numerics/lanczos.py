"""Lanczos' method with full re-orthogonalisation: a few eigenpairs of a symmetric operator known by its products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vitscope.numerics.precision import to_float64

Product = Callable[[Float[Tensor, " size"]], Float[Tensor, " size"]]
"""A vector times a symmetric matrix."""

Ends = Literal["both", "largest", "smallest"]
"""Which end of the spectrum is wanted, by signed value."""


@dataclass(frozen=True)
class Eigenpairs:
    r"""Eigenvalues, outermost first, their unit vectors as rows, and how far those are from being eigenvectors.

    ``residuals`` are :math:`\lVert Hv - \lambda v \rVert`, computed at these vectors: in exact arithmetic an
    eigenvalue lies within that distance of :math:`\lambda` (Parlett, The Symmetric Eigenvalue Problem, 4.5).
    """

    values: Float64[Tensor, " pairs"]
    vectors: Float[Tensor, "pairs size"]
    residuals: Float64[Tensor, " pairs"]


@dataclass(frozen=True)
class Extremes:
    """Both ends of a spectrum; an end that was not wanted is empty.

    ``norm`` is the largest modulus of a Ritz value, which estimates the spectral norm from below. ``products`` counts
    all products, including those that verify the residuals.
    """

    largest: Eigenpairs
    smallest: Eigenpairs
    norm: float
    products: int


def extreme_eigenpairs(
    product: Product,
    start: Float[Tensor, " size"],
    generator: torch.Generator,
    top: int,
    ends: Ends = "both",
    tolerance: float = 1e-4,
    steps: int = 200,
    rows: int | None = None,
) -> Extremes:
    r"""The ``top`` algebraically largest and smallest eigenpairs, from one Krylov space.

    Stops as soon as the residual bound of every wanted pair is at most ``tolerance`` times the spectral norm, or after
    ``steps`` products; then each residual is recomputed at the returned vector, one product each. Every new vector is
    orthogonalised against all earlier ones, so no eigenvalue is found twice. An eigenvalue of multiplicity m > 1 is
    found once (again only if rounding or an exhausted Krylov space brings its other vectors in). The memory is
    ``rows + 1`` vectors, ``rows`` being ``steps`` by default; when they are full the space is cut down to the best Ritz
    vectors and grown again (thick restart: Wu and Simon, SIAM J. Matrix Anal. Appl. 2000), which needs more products.
    Cost besides the products: about 4 x rows x size multiplications each.

    The space begins at ``start``; if it is exhausted early, ``generator`` (on the CPU) draws its next vector.
    """
    wanted = 2 * top if ends == "both" else top
    rows = min(max(rows or steps, wanted + 4), start.numel())  # 4: a restart leaves room for two products
    krylov = Krylov(product, start, rows, generator)
    for _ in range(min(steps, 10 * start.numel())):  # ten times the products of a space without restarts
        krylov.extend()
        values, weights, bounds = krylov.ritz()
        chosen = _wanted_places(values.numel(), top, ends)
        enough = krylov.size > wanted or krylov.complete
        # A tenth of the tolerance is left for rounding: the residuals are recomputed at the returned vectors.
        if krylov.complete or (enough and bool((bounds[chosen] <= 0.9 * tolerance * values.abs().max()).all())):
            break
        if krylov.size == rows:
            krylov.restart(_places_to_keep(values.numel(), top, ends))
    values, weights, _ = krylov.ritz()
    return _verify(krylov, product, values, weights, top, ends)


def norm(vectors: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch"]:
    """The Euclidean norm, summed pairwise: the library sums one by one, which costs float32 four of its digits."""
    return vectors.square().sum(-1).sqrt()


class Krylov:
    """A growing Krylov space: an orthonormal basis, and the operator projected on it.

    ``basis[: size]`` have been multiplied; ``basis[size]`` is the next vector unless the space is complete.
    """

    def __init__(self, product: Product, start: Float[Tensor, " size"], rows: int, generator: torch.Generator) -> None:
        self._product, self._generator = product, generator
        self.basis = start.new_empty(rows + 1, start.numel())
        self.basis[0] = start / norm(start)
        self.projected = torch.zeros(rows + 1, rows + 1, dtype=torch.float64)
        self.size = 0
        self.products = 0

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space, so that nothing is left to find."""
        return self.size == self.basis.shape[1]

    def extend(self) -> None:
        """Take one product and add one basis vector."""
        j, basis = self.size, self.basis
        vector = self._product(basis[j]).clone()
        self.products += 1
        known = self.projected[:j, j].nonzero().flatten().tolist()
        if known:  # known parts in the earlier vectors: in one of them, or in all those of a restart
            low = min(known)
            vector -= self.projected[low:j, j].to(vector) @ basis[low:j]
        alpha = (basis[j] * vector).sum()
        vector -= alpha * basis[j]
        vector, corrections = self._orthogonal(vector, j + 1)
        self.projected[j, j] = to_float64(alpha).cpu() + to_float64(corrections[j]).cpu()
        self.size += 1
        if not self.complete:
            self._append(vector)

    def _orthogonal(
        self, vector: Float[Tensor, " size"], count: int
    ) -> tuple[Float[Tensor, " size"], Float[Tensor, " count"]]:
        """The vector less its part in the basis, and that part; again, up to twice, if little of it was left."""
        basis, total = self.basis[:count], torch.zeros(())
        for _ in range(3):
            before = norm(vector)
            corrections = basis @ vector
            vector = torch.addmv(vector, basis.T, corrections, alpha=-1)
            total = total.to(corrections) + corrections
            if norm(vector) > 0.7 * before:  # 1 / sqrt 2: what is left is then orthogonal to 1.4 eps
                break
        return vector, total

    def _append(self, vector: Float[Tensor, " size"]) -> None:
        j = self.size
        beta = float(norm(vector))
        scale = float(self.projected[:j, :j].abs().max())
        # Up to a few eps of the norm what is left is a product's rounding: an invariant subspace, so go on elsewhere.
        if beta <= 4 * torch.finfo(vector.dtype).eps * scale or beta == 0:
            fresh = torch.randn(vector.numel(), generator=self._generator, dtype=torch.float64).to(vector)
            vector, beta = self._orthogonal(fresh, j)[0], 0.0
        self.basis[j] = vector / norm(vector)
        self.projected[j, j - 1] = self.projected[j - 1, j] = beta

    def ritz(self) -> tuple[Float64[Tensor, " size"], Float64[Tensor, "size size"], Float64[Tensor, " size"]]:
        """Ritz values in ascending order, their vectors' coordinates as columns, and the residual bounds."""
        j = self.size
        values, weights = torch.linalg.eigh(self.projected[:j, :j])
        beta = torch.zeros((), dtype=torch.float64) if self.complete else self.projected[j, j - 1]
        return values, weights, (beta * weights[-1]).abs()

    def vectors(self, weights: Float64[Tensor, "basis pairs"]) -> Float[Tensor, "pairs size"]:
        """Combinations of the basis vectors, one for each column of ``weights``."""
        return weights.T.to(self.basis) @ self.basis[: self.size]

    def restart(self, kept: list[int]) -> None:
        """Cut the basis down to these Ritz vectors and the next vector."""
        values, weights, _ = self.ritz()
        j, k = self.size, len(kept)
        beta = float(self.projected[j, j - 1])
        chosen = weights[:, kept].T.to(self.basis)
        for columns in torch.arange(self.basis.shape[1]).split(1 << 20):
            low, high = int(columns[0]), int(columns[-1]) + 1
            self.basis[:k, low:high] = chosen @ self.basis[:j, low:high]
        self.basis[k] = self.basis[j]
        self.projected.zero_()
        self.projected[range(k), range(k)] = values[kept]
        self.projected[k, :k] = self.projected[:k, k] = beta * weights[-1, kept]
        self.size = k


class Chains:
    """Separate Krylov spaces of several vectors, grown in step: their products are taken together.

    ``product`` multiplies rows by a positive semidefinite matrix. Cost besides the products of all chains' vectors: ``4
    steps size`` multiplications a chain and step.
    """

    def __init__(
        self, product: Callable[[Float[Tensor, "chains size"]], Float[Tensor, "chains size"]], start: Tensor
    ) -> None:
        self._product, self._diagonal, self._beside = product, list[Tensor](), list[Tensor]()
        self._basis = [start / norm(start)[:, None]]

    def extend(self) -> None:
        """Take one product and add one basis vector for each chain; an exhausted chain goes on with zeros."""
        vector = self._product(self._basis[-1])
        scale = norm(vector)
        self._diagonal.append((self._basis[-1] * vector).sum(1))
        for known in [*reversed(self._basis), *reversed(self._basis)]:  # twice, for rounding
            vector = vector - (known * vector).sum(1, keepdim=True) * known
        length = norm(vector)
        goes_on = length > 4 * torch.finfo(vector.dtype).eps * scale  # less is the rounding of the product
        self._beside.append(torch.where(goes_on, length, 0.0))
        self._basis.append(torch.where(goes_on, 1 / length, 0.0)[:, None] * vector)

    def largest(self) -> float:
        """The largest Ritz value of all chains."""
        beside = torch.stack(self._beside, 1)[:, :-1]
        rows = torch.diag_embed(torch.stack(self._diagonal, 1))
        rows = rows + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        return float(torch.linalg.eigvalsh(to_float64(rows).cpu()).max())


def _wanted_places(count: int, top: int, ends: Ends) -> list[int]:
    """Places of the wanted Ritz values among ``count`` ascending ones."""
    low = range(min(top, count)) if ends != "largest" else range(0)
    high = range(max(count - top, 0), count) if ends != "smallest" else range(0)
    return sorted({*low, *high})


def _places_to_keep(count: int, top: int, ends: Ends) -> list[int]:
    """Places that survive a restart: the wanted ones, and half of the others, those next to the wanted ones."""
    wanted = len(_wanted_places(count, top, ends))
    spare = (count - wanted) // 2
    return _wanted_places(count, top + (spare // 2 if ends == "both" else spare), ends)


def _verify(
    krylov: Krylov,
    product: Product,
    values: Float64[Tensor, " size"],
    weights: Float64[Tensor, "size size"],
    top: int,
    ends: Ends,
) -> Extremes:
    pairs: dict[str, Eigenpairs] = {}
    count, products = values.numel(), krylov.products
    for end in ("largest", "smallest"):
        places = _wanted_places(count, top, end) if ends in ("both", end) else []
        found = krylov.vectors(weights[:, places])
        found = found / norm(found)[:, None]
        images = torch.stack([product(vector) for vector in found]) if places else found
        quotients = (found * images).sum(1)
        residuals = to_float64(norm(images - quotients[:, None] * found)).cpu()
        products += len(places)
        quotients = to_float64(quotients).cpu()
        order = quotients.argsort(descending=end == "largest")
        pairs[end] = Eigenpairs(quotients[order], found[order.to(found.device)], residuals[order])
    return Extremes(pairs["largest"], pairs["smallest"], float(values.abs().max()), products)
