"""The loss landscape: mean loss over a plane through the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, Fact, StudyGrid, points
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.direction import (
    GivenDirection,
    Normalisation,
    RandomDirection,
    TowardsWeights,
    fix_direction,
    scale_to_weights,
)
from vitscope.interventions.weight_displacement import WeightDisplacement
from vitscope.measurement.bounds import LARGEST, SIZE, Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.feed import input_like
from vitscope.models.rewritten import parameters_of
from vitscope.models.subject import Subject, Unwatched
from vitscope.numerics.precision import to_float64
from vitscope.numerics.sample_size import sample_size, upper_deviation

_LEVEL = 0.95


@STUDIES.add("loss-landscape")
@final
@dataclass(frozen=True)
class LossLandscape(AbstractStudy):
    r"""Mean loss and accuracy over a plane through the weights, the L2 term apart.

    .. math:: L(\theta + \alpha d_1 + \beta d_2), \qquad \text{L2} = \tfrac{\lambda}{2} \lVert \theta \rVert^2

    Every point is measured on the same images, with the same pixels and targets if they are augmented. Both directions
    are Gaussian and scaled to the weights once: to the norm of each filter (Li et al.), or over the first axis as in
    Park and Kim's code; or they are the two outermost eigenvectors of the Hessian, as long as the weights. With
    ``towards`` the first leads to another checkpoint, at distance 1. Buffers stay where they are, and biases and norms
    too, except with the last two kinds.

    ``l2`` is the term that weight decay adds to the loss under plain gradient descent (AdamW adds none).
    ``l2_park_kim`` is what the code of Park and Kim adds instead, :math:`\lambda \sum_p \lVert \theta_p \rVert`, which
    makes up most of their figure. Neither is part of ``nll``.

    With ``error``, a pilot of images at corners, edges and centre determines how many images bring the standard error
    of the mean loss, as an estimate of that of all the images given, to ``error`` nats at the worst of these points;
    that many, drawn at random and including the pilot's, are measured at every point. Cost: a forward pass of each of
    them for each point.
    """

    name = "loss-landscape"
    title = "Loss landscape"
    headline = "nll"
    question = "How is its loss curved?"
    references = (
        "Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018",
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 1",
    )

    grid_size: int = field(default=21, metadata={"flag": "grid", "bounds": Bounds(2, 10_001)})
    """Points along each direction; an odd number has the model itself at the centre."""
    extent: float = bounded_field(1.0, Bounds(above=0, most=1e6))
    """Largest distance along each direction, to either side."""
    directions: Literal["filter-normalised", "park-kim", "hessian"] = "filter-normalised"
    """Random, scaled to the norm of each filter (Li et al.) or over the first axis (Park and Kim); or eigenvectors."""
    towards: str | None = None
    """A checkpoint of the same model to which the first direction leads."""
    weight_decay: float = bounded_field(0.05, SIZE)
    """Weight decay of the L2 term, which is shown separately."""
    error: float | None = bounded_field(None, Bounds(above=0, most=1e6))
    """Largest standard error of the mean loss, in nats; all images are used if it is not given."""
    pilot: int = bounded_field(64, Bounds(8, LARGEST))
    """Images that determine how many are needed."""
    seed: int = 0
    """Seed of the directions and of the choice of images."""

    def __post_init__(self) -> None:
        if self.grid_size < 2:
            raise UserError(f"The grid has {self.grid_size} points a side; a landscape needs at least 2.")
        if not self.extent > 0:
            raise UserError(f"The extent is {self.extent}; it is the largest distance to either side, above 0.")
        if self.error is not None and not self.error > 0:
            raise UserError(f"The error is {self.error} nats; it must be above 0, or left out to use all images.")
        if self.pilot < 8:
            raise UserError(f"The pilot has {self.pilot} images; it takes at least 8 to estimate a spread.")
        super().__post_init__()

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """The weights displaced to every point."""
        del plan
        return self._grid(subject, *self._directions(subject, images))

    def lay_out(self, subject: Subject, images: Images, plan: Plan) -> tuple[StudyGrid, Images]:
        """The weights displaced to every point, and all images or as many at random as the error requires."""
        if images.labels is None:
            raise UserError(
                f"{images.name} has no labels, and a loss needs them; give class folders or a label column."
            )
        first, second = self._directions(subject, images)
        return self._grid(subject, first, second), self._sample_images(subject, images, plan, first, second)

    def _grid(self, subject: Subject, first: GivenDirection, second: GivenDirection) -> StudyGrid:
        axes = self._axes(first, second)
        places = [(float(alpha), float(beta)) for alpha, beta in points(axes)]
        settings = tuple((WeightDisplacement(first, second, alpha, beta),) for alpha, beta in places)
        return StudyGrid(axes, settings, _norms(subject, first, second, places, self.weight_decay))

    def _sample_images(
        self, subject: Subject, images: Images, plan: Plan, first: GivenDirection, second: GivenDirection
    ) -> Images:
        """All images, or as many at random as the error requires, including the pilot's."""
        if self.error is None or len(images) <= self.pilot:
            return images
        shown = _at_random(images, self.pilot, self.seed)
        deviation = upper_deviation(self._deviation(subject, shown, plan, first, second), self.pilot, _LEVEL)
        count = sample_size(deviation, self.error, len(images))
        return images if count == len(images) else _at_random(images, count, self.seed)

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """The mean loss, and how often it is right."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """What was moved, and how the number of images was chosen."""
        small = [p for p in parameters_of(subject).values() if p.ndim < 2]
        found = [
            f"Directions: {self.directions}, seed {self.seed}"
            + (f", the first towards {self.towards}" if self.towards else "")
            + f". {len(small)} parameters of one axis (biases, norms) have no part in random directions, "
            "buffers (batch norm's statistics) in none.",
        ]
        if self.error is not None:
            found.append(
                f"Enough images are measured that the mean loss is within a standard error of {self.error:g} nats of "
                f"that of all the images given, at the worst of nine points, judged by {self.pilot} of them "
                f"({_LEVEL:.0%} upper limit of the spread). The errors shown are of the mean as an estimate for images "
                "in general; times the root of the share of images not measured, they are for the mean of all given."
            )
        return tuple(found)

    def _axes(self, first: GivenDirection, second: GivenDirection) -> tuple[Axis, Axis]:
        distances = parse_numbers(f"{-self.extent!r}:{self.extent!r}:{self.grid_size}")
        return (
            Axis("first", distances, f"Distance along the first direction ({first.label})"),
            Axis("second", distances, f"Distance along the second direction ({second.label})"),
        )

    def _directions(self, subject: Subject, images: Images) -> tuple[GivenDirection, GivenDirection]:
        if self.directions == "hessian":
            from vitscope.engine.curvature.eigenvectors import (
                top_eigenvectors,  # costs little to import, but is seldom needed
            )

            vectors = top_eigenvectors(subject, images, 2, seed=self.seed)
            found = [GivenDirection(v, f"Hessian eigenvector {number}") for number, v in enumerate(vectors, start=1)]
            first, second = (scale_to_weights(one, subject) for one in found)
        else:
            first, second = self._random(subject, self.directions)
        return (first if self.towards is None else self._towards(subject, self.towards)), second

    def _random(self, subject: Subject, kind: Normalisation) -> tuple[GivenDirection, GivenDirection]:
        one, two = (RandomDirection(2 * self.seed + number, kind) for number in (0, 1))
        return fix_direction(one, subject), fix_direction(two, subject)

    def _towards(self, subject: Subject, path: str) -> GivenDirection:
        return fix_direction(TowardsWeights(read_checkpoint(Path(path)).weights, Path(path).name), subject)

    def _deviation(
        self, subject: Subject, shown: Images, plan: Plan, first: GivenDirection, second: GivenDirection
    ) -> float:
        """Largest standard deviation of the loss over the pilot's images, among nine points of the plane.

        These images are the first to be measured, as in Stein's two stages (Annals of Mathematical Statistics 1945):
        the reported error is over all measured images, and the pilot determines their number by its spread alone.
        """
        batches = list(shown.batches(subject.preprocessing.transform, plan.batch_size))
        steps = (-self.extent, 0.0, self.extent)
        deviations: list[float] = []
        for alpha, beta in ((alpha, beta) for alpha in steps for beta in steps):
            displaced = WeightDisplacement(first, second, alpha, beta)(subject)
            deviations.append(float(_losses(displaced, batches).std()))
        return max(deviations, key=lambda one: np.inf if np.isnan(one) else one)


def _at_random(images: Images, count: int, seed: int) -> Images:
    """``count`` of the images, each equally likely whatever its class; a smaller choice is a subset of a larger one."""
    chosen = np.random.default_rng([seed, 0, len(images)]).permutation(len(images))[:count]
    return images.take(np.sort(chosen))


def _losses(subject: Subject, batches: Sequence[Batch]) -> Float[torch.Tensor, " images"]:
    """The cross-entropy of every image."""
    device = input_like(subject.module).device
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in batches:
            logits = to_float64(subject.anatomy.walk(batch.pixels.to(device), Unwatched())).cpu()
            targets = batch.labels if batch.targets is None else to_float64(batch.targets)
            assert targets is not None, "unlabelled images were refused"
            found.append(functional.cross_entropy(logits, targets, reduction="none"))
    return torch.cat(found)


def _norms(
    subject: Subject,
    first: GivenDirection,
    second: GivenDirection,
    places: Sequence[tuple[float, float]],
    decay: float,
) -> tuple[Fact, Fact]:
    """The L2 term at every point, and what the code of Park and Kim adds; from inner products, without the weights."""
    alpha, beta = np.array([*places, (0.0, 0.0)]).T
    parts: list[Float[np.ndarray, " points"]] = []
    for name, weights in parameters_of(subject).items():
        w, a, b = _inner_products(name, weights, first.tensors, second.tensors)
        square = w[0] + 2 * alpha * w[1] + 2 * beta * w[2] + alpha**2 * a[1] + 2 * alpha * beta * a[2] + beta**2 * b[2]
        parts.append(square.clip(min=0))  # rounding may take what is zero below it
    squares = np.stack(parts)
    l2, theirs = decay / 2 * squares.sum(0), decay * np.sqrt(squares).sum(0)
    half = "Half the weight decay times the squared norm of all parameters"
    summed = "The weight decay times the sum of the parameters' norms, not squared, as the code of Park and Kim adds it"
    return (
        _fact("l2", "L2 term", f"{half} (weight decay {decay:g}); not part of the loss.", l2),
        _fact("l2_park_kim", "L2 term of Park and Kim", f"{summed} (weight decay {decay:g}).", theirs),
    )


def _inner_products(
    name: str, weights: torch.Tensor, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
) -> Float[np.ndarray, "3 3"]:
    """The inner products of a parameter and its parts of both directions with one another, in float64."""
    zero = torch.zeros_like(weights)
    rows = torch.stack(
        [to_float64(one).reshape(-1) for one in (weights, first.get(name, zero), second.get(name, zero))]
    )
    return (rows @ rows.T).cpu().numpy()


def _fact(name: str, label: str, meaning: str, values: Float[np.ndarray, " points"]) -> Fact:
    return Fact(Quantity(name, label, "nats", meaning), tuple(values[:-1].tolist()), float(values[-1]))
