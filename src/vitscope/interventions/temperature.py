"""Logits divided by one temperature, fitted to labelled images."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, cast, final

import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor, nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.engine.measure import fit_images
from vitscope.engine.reading.failure import report_failures
from vitscope.interventions.hidden_pair import agree
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.edit import AbstractWrapped, with_edit, with_module
from vitscope.models.feed import input_like, module_input
from vitscope.models.own_forward import probe_images
from vitscope.models.rewritten import replace_parameters
from vitscope.models.state import buffers_kept
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, AbstractObserver, Composition, Subject, Unwatched
from vitscope.models.surgery import double_copy
from vitscope.models.unit import Place
from vitscope.models.written import WRITTEN
from vitscope.numerics.precision import to_float64

_LARGEST = 1e6
"""The largest temperature, and its smallest inverse, that is looked for."""


@INTERVENTIONS.add("temperature")
@WRITTEN.add("temperature")
@final
@dataclass(frozen=True)
class Temperature(AbstractIntervention, AbstractEdit):
    r"""Logits divided by one temperature: predictions stay, confidences fall above 1 and rise below.

    .. math:: p = \mathrm{softmax}(z / T)

    The factor is folded into weight and bias of the classifier's last linear layer (of several, whose logits are
    averaged, if need be), if that is found to divide the logits by :math:`T` exactly, in float64; the module is then an
    ordinary one of the same shapes. Otherwise the walk divides the logits. The order of a picture's logits changes by
    rounding alone.
    """

    temperature: float = bounded_field(1.5, Bounds(1 / _LARGEST, _LARGEST))
    name: ClassVar[str] = "temperature"
    title: ClassVar[str] = "Logits divided by a temperature"
    references: ClassVar[tuple[str, ...]] = (
        "Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017",
    )
    changes_weights: ClassVar[bool] = True

    @override
    def __call__(self, subject: Subject) -> Subject:
        """The subject with its logits divided. Raises ``UserError`` if it has no classifier."""
        if subject.class_count < 1:
            raise UserError(f"{subject.name} has no classifier, so there are no logits to divide.")
        if self.temperature == 1:
            return subject
        names = _last_layers(subject, self.temperature)
        if names is None:
            return with_edit(subject, self)
        own = dict(subject.module.named_parameters())
        changed = {name: own[name].detach() / self.temperature for name in names}
        return with_module(subject, replace_parameters(subject.module, changed))

    @override
    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy whose logits are divided."""
        if isinstance(anatomy, Composition):
            return replace(anatomy, tail=DividedTail(anatomy.tail, self.temperature))
        return DividedLogits(anatomy, self.temperature)

    @classmethod
    def fitted(cls, subject: Subject, images: Images, batch_size: int = 32) -> "Temperature":
        r"""The temperature with the least mean negative log-likelihood of the images' labels.

        .. math:: L(\beta) = \frac1n \sum_i \Big(\log \sum_c e^{\beta z_{ic}} - \beta z_{i y_i}\Big),
            \qquad T = 1 / \beta

        :math:`L` is convex in :math:`\beta`, so the root of its derivative is the minimum; Brent's method finds it
        between two bounds, in float64. Raises ``UserError`` without labels, if every image is predicted correctly (the
        best :math:`T` is 0), or if the logits tell no more than chance (it is infinite or negative). Cost: one forward
        pass over the images, and some 30 evaluations of the derivative.
        """
        logits, labels = labelled_logits(subject, images, batch_size)
        return cls(fit_temperature(logits, labels, subject.name))

    @override
    @classmethod
    def examples(cls) -> "tuple[Temperature, ...]":
        """Milder and sharper confidences."""
        return cls(1.5), cls(0.5)

    @override
    @classmethod
    def nothing(cls) -> "tuple[Temperature, ...]":
        """A temperature of 1."""
        return (cls(1.0),)


@final
@dataclass(frozen=True)
class DividedTail:
    """``tail(stream) / temperature``."""

    tail: Callable[[Stream], Tensor]
    temperature: float

    def __call__(self, stream: Stream) -> Tensor:
        """The logits."""
        return self.tail(stream) / self.temperature


@final
@dataclass(frozen=True)
class DividedLogits(AbstractWrapped):
    """The anatomy of a plain module whose logits are divided by a temperature."""

    anatomy: AbstractAnatomy
    temperature: float

    @property
    @override
    def inner(self) -> AbstractAnatomy:
        """The anatomy with its own logits."""
        return self.anatomy

    @property
    @override
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.anatomy.places

    @override
    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The divided logits."""
        return self.anatomy.walk(images, observer) / self.temperature


def labelled_logits(
    subject: Subject, images: Images, batch_size: int = 32
) -> tuple[Float[Tensor, "images classes"], Int[Tensor, " images"]]:
    """The logits of the images, in float64, and their labels as numbers of the subject's classes.

    Raises ``UserError`` if the images have no labels, or none that fit. Cost: one forward pass, and the logits' memory.
    """
    chosen = fit_images(subject, images)
    device = input_like(subject.module).device
    rows: list[tuple[Tensor, Tensor]] = []
    for batch in chosen.batches(subject.preprocessing.transform, batch_size):
        if batch.labels is None:
            raise UserError(
                f"{images.name} has no labels, and a temperature is fitted to labels; give labelled images."
            )
        if len(batch.indices):
            with torch.no_grad(), report_failures(subject, chosen, batch):
                logits = subject.anatomy.walk(batch.pixels.to(device), Unwatched())
            rows.append((to_float64(logits).cpu(), batch.labels.cpu()))
    if not rows:
        raise UserError(f"None of the {len(images)} images of {images.name} could be read, so nothing can be fitted.")
    return torch.cat([one for one, _ in rows]), torch.cat([one for _, one in rows])


def fit_temperature(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], name: str = "The model"
) -> float:
    """The temperature of least mean negative log-likelihood; see :meth:`Temperature.fitted` for the errors."""
    scores = to_float64(logits)
    if not bool(scores.isfinite().all()):
        raise UserError(f"{name} gives logits that are not finite numbers, so no temperature can be fitted to them.")
    margins = scores - scores.gather(1, labels[:, None])

    def slope(log_inverse: float) -> float:
        return float((margins * (math.exp(log_inverse) * margins).softmax(1)).sum(1).mean())

    if bool((margins <= 0).all()):
        raise UserError(
            f"{name} predicts all {len(labels)} images correctly, so the lower its temperature the better; "
            "fit it to more images, or to others."
        )
    ends = (-math.log(_LARGEST), math.log(_LARGEST))
    if slope(ends[0]) >= 0:
        raise UserError(
            f"The logits of {name} tell these labels no better than chance, so no temperature makes them better; "
            "check that the labels are those of the model's classes."
        )
    if slope(ends[1]) <= 0:
        raise UserError(f"The best temperature of {name} is below {1 / _LARGEST:g}; fit it to more images.")
    return math.exp(-cast(float, brentq(slope, *ends, xtol=1e-12)))


def _last_layers(subject: Subject, temperature: float) -> tuple[str, ...] | None:
    """The parameters that divide the logits by the temperature if they are divided; None if none do.

    The last linear layers with as many outputs as there are classes are tried, one, then two and so on, in float64.
    Cost: a copy of the module in float64, and a walk of two images for each trial.
    """
    if input_like(subject.module).dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return None
    double = with_module(replace(subject, edits=()), double_copy(subject.module))
    images = module_input(double.module, probe_images(subject.preprocessing.shape))
    with torch.no_grad(), buffers_kept(double.module):
        expected = double.anatomy.walk(images, Unwatched()) / temperature
        for names in _candidates(double):
            own = dict(double.module.named_parameters())
            changed = replace_parameters(double.module, {name: own[name].detach() / temperature for name in names})
            if agree(with_module(double, changed).anatomy.walk(images, Unwatched()), expected):
                return names
    return None


def _candidates(subject: Subject) -> Iterator[tuple[str, ...]]:
    """Names of the parameters of the last linear layer of so many classes, of the last two, ..."""
    own = {name for name, _ in subject.module.named_parameters()}
    layers = [
        [f"{name}.{one}" if name else one for one, _ in part.named_parameters(recurse=False)]
        for name, part in subject.module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and part.weight.shape[0] == subject.class_count
    ]
    for count in range(1, min(len(layers), 3) + 1):
        names = tuple(name for layer in layers[-count:] for name in layer if name in own)
        if names:
            yield names
