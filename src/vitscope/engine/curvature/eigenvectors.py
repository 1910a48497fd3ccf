"""Eigenvectors of the Hessian of the mean loss, by the weights' names."""

from torch import Tensor

from vitscope.data import Images
from vitscope.engine.curvature.hessian import (
    MeanHessian,
    Precision,
    minibatch_hessian,
    refuse_without_loss,
    trainable_copy,
    with_finite_loss,
)
from vitscope.engine.curvature.sample import LossSample
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.numerics.lanczos import extreme_eigenpairs

BASIS_BYTES = 4 << 30
"""Bytes that the basis of a Krylov space may take; a larger one is restarted."""


def basis_rows(size: int, like: Tensor) -> int:
    """How many vectors of this size fit into :data:`BASIS_BYTES`, at least 1."""
    return max(1, BASIS_BYTES // (size * like.element_size()))


def top_eigenvectors(
    subject: Subject,
    images: Images,
    count: int = 2,
    which: str = "largest",
    batch: int = 16,
    batches: int = 8,
    precision: Precision = "float32",
    steps: int = 200,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """Unit eigenvectors of the Hessian of the mean loss over several mini-batches, by the weights' names.

    ``which``: the algebraically ``largest`` or ``smallest`` eigenvalues, outermost first. Iteration stops at residuals
    of ``tolerance`` times the spectral norm; raises ``UserError`` if after ``steps`` products one is above twice that.
    Memory: the graphs of all mini-batches' losses at once. The subject is untouched.
    """
    if which not in ("largest", "smallest"):
        raise UserError(f"which is {which!r}; it must be 'largest' or 'smallest'.")
    refuse_without_loss(subject, images.labels is not None)
    sample = LossSample(batch, batches, "model", precision, seed)
    shown = trainable_copy(subject, precision)
    read = [sample.minibatch(shown, images, number) for number in range(sample.count(images))]
    found = [finite for one in read if len(one) and len(finite := with_finite_loss(subject, one))]
    total = sum(len(one) for one in found)
    if not total:
        raise UserError(f"None of {sum(map(len, read))} images has a finite loss, so there is no curvature.")
    shares = tuple(len(one) / total for one in found)
    hessian = MeanHessian(tuple(minibatch_hessian(shown, one) for one in found), shares)
    generator, rows = sample.generator(0), basis_rows(hessian.size, hessian.like)
    extremes = extreme_eigenpairs(
        hessian.product, hessian.start(generator), generator, count, which, tolerance, steps, min(steps, rows)
    )
    pairs = extremes.largest if which == "largest" else extremes.smallest
    worst = float(pairs.residuals.max()) / extremes.norm if extremes.norm else 0.0
    if worst > 2 * tolerance:
        raise UserError(
            f"An eigenvector has a residual of {worst:.1g} times the spectral norm after {extremes.products} products; "
            f"raise steps above {steps} or tolerance above {tolerance:g}."
        )
    return [
        {name: piece.detach() for name, piece in hessian.split_by_weight(vector).items()} for vector in pairs.vectors
    ]
