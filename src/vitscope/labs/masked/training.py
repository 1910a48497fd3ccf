"""Gradient descent on fresh samples, many trials at once, with readings of the model on the way."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from vitscope.labs.masked.clusters import ClusteredPatches, MaskedSamples, concatenate
from vitscope.labs.masked.position_attention import (
    Correlations,
    PositionAttention,
    at_zero,
    reconstruction_gradient,
    reconstruction_loss,
    unavoidable_loss,
)
from vitscope.measurement.errors import UserError


class AbstractMaskedObjective(ABC):
    """The objective that a model is trained for."""

    @property
    @abstractmethod
    def views(self) -> int:
        """The number of masks of each image that it needs."""

    @abstractmethod
    def gradient(self, model: PositionAttention, views: Sequence[MaskedSamples]) -> Correlations:
        """Gradient of the objective, a mean over samples."""


@dataclass(frozen=True)
class Reconstruction(AbstractMaskedObjective):
    """Masked reconstruction: half the squared distance of hidden patches (the paper's MAE objective)."""

    @property
    @override
    def views(self) -> int:
        return 1

    def gradient(self, model: PositionAttention, views: Sequence[MaskedSamples]) -> Correlations:
        """The gradient in closed form."""
        return reconstruction_gradient(model.attend(views[0]))


@dataclass(frozen=True)
class MaskedTrial:
    """One run: a setting, a seed that determines its partition and all of its samples, and a learning rate."""

    setting: ClusteredPatches
    seed: int
    rate: float = 6.0
    """Learning rate, eta."""


@dataclass(frozen=True)
class MaskedTraining:
    """When a model is evaluated, on how many samples, and in which precision and device it is trained."""

    recorded: tuple[int, ...]
    """Steps at which the model is evaluated, ascending; training ends at the last. 0 is before the first step."""
    batch: int = 48
    """Fresh samples of a step, in place of the expectation."""
    evaluated: int = 256
    """Samples on which the model is evaluated, the same at every step."""
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def __post_init__(self) -> None:
        steps = self.recorded
        if not steps or list(steps) != sorted(set(steps)) or min(*steps, self.batch - 1, self.evaluated - 1) < 0:
            raise UserError(
                f"recorded steps are {steps}, batch {self.batch} and evaluated {self.evaluated}: "
                "give ascending steps, 0 or more, and at least 1 of the others."
            )


@dataclass(frozen=True, eq=False)
class MaskedReading:
    """Readings of a model at one step, or at several: correlations, attention of hidden patches, and loss.

    A mean over nothing is NaN, such as over local queries with a visible patch if a local area is one patch.
    """

    own_global: Float[Tensor, "trials *steps"]
    """Mean Phi of a query in a global area with that area's feature."""
    own_local: Float[Tensor, "trials *steps"]
    """The same for a query in a local area."""
    local_to_global: Float[Tensor, "trials *steps"]
    """Mean Phi of a query in a local area with the global feature of the same cluster."""
    others: Float[Tensor, "trials *steps"]
    """Mean Phi of a query with the feature of another local area."""
    position: Float[Tensor, "trials *steps"]
    """Largest modulus of Upsilon."""
    global_attention: Float[Tensor, "trials *steps"]
    """Attention to its own area of a hidden query in the global area, if a patch of the area is visible."""
    local_attention: Float[Tensor, "trials *steps"]
    """The same for a hidden query in a local area."""
    global_attention_always: Float[Tensor, "trials *steps"]
    """Attention to its own area of a hidden query in the global area, whether or not a patch of it is visible."""
    local_attention_always: Float[Tensor, "trials *steps"]
    """The same for a hidden query in a local area; it cannot exceed the share of queries with a visible patch."""
    stray_attention: Float[Tensor, "trials *steps"]
    """Attention of a hidden query in a local area to the global area."""
    loss: Float[Tensor, "trials *steps"]
    """Mean reconstruction loss."""
    excess: Float[Tensor, "trials *steps"]
    """The loss above the unavoidable loss of the same samples; at least 0."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A finished training: the recorded steps, the readings, and the last model."""

    steps: Int[Tensor, " steps"]
    reading: MaskedReading
    model: PositionAttention


def train(
    trials: Sequence[MaskedTrial], training: MaskedTraining, objective: AbstractMaskedObjective | None = None
) -> Trajectory:
    """Gradient descent from Q = 0, all trials in one computation; each ends as it would alone, up to rounding.

    Trials may differ in everything but numbers of patches, clusters and areas. The default ``objective`` is masked
    reconstruction. Memory: about ten arrays of trials x batch x areas x patches.
    """
    if len({(t.setting.patches, t.setting.clusters, t.setting.areas) for t in trials}) != 1:
        raise UserError("trials differ in patches, clusters or areas, or there are none: train each group separately.")
    objective = objective or Reconstruction()
    draws = [_TrialDraws(trial, training, objective.views) for trial in trials]
    device = torch.device(training.device)
    partition = torch.stack([draw.partition for draw in draws]).to(device)
    evaluation = concatenate([draw.evaluation for draw in draws]).to(training.dtype, device)
    rates = torch.tensor([trial.rate for trial in trials], dtype=training.dtype, device=device)
    model = at_zero(partition, trials[0].setting.areas, training.dtype)
    readings: list[MaskedReading] = []
    for step in range(training.recorded[-1] + 1):
        if step in training.recorded:
            readings.append(read(model, evaluation))
        if step < training.recorded[-1]:
            drawn = zip(*(draw.views() for draw in draws), strict=True)
            views = [concatenate(list(view)).to(training.dtype, device) for view in drawn]
            model = model.descend(objective.gradient(model, views), rates)
    return Trajectory(torch.tensor(training.recorded), _stack(readings), model)


def read(model: PositionAttention, samples: MaskedSamples) -> MaskedReading:
    """The model's correlations, and its attention and loss on these samples."""
    feature, position = model.correlations.feature, model.correlations.position
    areas = torch.arange(feature.shape[3], device=feature.device)
    own = (model.partition.mT.unsqueeze(-1) == areas).to(feature)
    in_global, first = own[..., :1], (areas == 0).to(feature)
    attention = model.attend(samples)
    of_global = attention.hidden * attention.queries[..., 0, :]
    of_local = attention.hidden * (1 - attention.queries[..., 0, :])
    seen, mass, loss = attention.own_is_visible, attention.own, reconstruction_loss(attention)
    return MaskedReading(
        own_global=_mean(feature, own * in_global),
        own_local=_mean(feature, own * (1 - in_global)),
        local_to_global=_mean(feature, (1 - in_global) * first),
        others=_mean(feature, (1 - own) * (1 - first)),
        position=position.abs().amax((1, 2)),
        global_attention=_mean(mass, of_global * seen),
        local_attention=_mean(mass, of_local * seen),
        global_attention_always=_mean(mass, of_global),
        local_attention_always=_mean(mass, of_local),
        stray_attention=_mean(attention.area[..., 0, :], of_local),
        loss=loss.mean(1),
        excess=(loss - unavoidable_loss(attention)).mean(1),
    )


def first_reached(
    steps: Int[Tensor, " steps"], curve: Float[Tensor, "trials steps"], level: float
) -> Float[Tensor, " trials"]:
    """The step at which a curve first reaches a level, linear between recorded steps; NaN if it never does."""
    over = curve >= level
    after = over.to(torch.int64).argmax(1).clamp(min=1)
    low, high = (curve.gather(1, index[:, None])[:, 0] for index in (after - 1, after))
    share = ((level - low) / (high - low)).clamp(0, 1)
    place = steps.to(curve)
    reached = place[after - 1] + share * (place[after] - place[after - 1])
    return torch.where(over[:, 0], place[0], reached).masked_fill(~over.any(1), torch.nan)


class _TrialDraws:
    """Everything random in a trial, from its seed alone."""

    def __init__(self, trial: MaskedTrial, training: MaskedTraining, views: int) -> None:
        self._setting, self._batch, self._views = trial.setting, training.batch, views
        seeds = np.random.SeedSequence(trial.seed).generate_state(3)
        fixed, read_on, self._generator = (torch.Generator().manual_seed(int(seed)) for seed in seeds)
        self.partition = trial.setting.partition(fixed)
        self.evaluation = trial.setting.draw(training.evaluated, read_on)

    def views(self) -> list[MaskedSamples]:
        """The next step's images, once under each of their masks."""
        samples = self._setting.draw(self._batch, self._generator)
        others = [self._setting.mask_again(samples, self._generator) for _ in range(self._views - 1)]
        return [samples, *others]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over all axes but the first."""
    return (values * weights).flatten(1).sum(1) / weights.expand_as(values).flatten(1).sum(1)


def _stack(readings: list[MaskedReading]) -> MaskedReading:
    names = [field.name for field in fields(MaskedReading)]
    return MaskedReading(**{name: torch.stack([getattr(one, name) for one in readings], 1) for name in names})
