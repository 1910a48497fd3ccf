"""Distillation: a model learns another model's predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitscope.data.image import Images
from vitscope.measurement.bounds import SHARE, Bounds, bounded_field, check_bounds
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.models.catalogue import composition_of
from vitscope.models.compact import compact
from vitscope.models.edit import with_edits
from vitscope.models.subject import Subject
from vitscope.runs.code import code_version
from vitscope.training.objective import OBJECTIVES, AbstractObjective, Forward, TrainingBatch
from vitscope.training.objectives.classification import ACCURACY, NLL, class_figures

AGREEMENT = Quantity(
    "agreement",
    "agreement with the teacher",
    "1",
    "Share of the images for which both models predict the same class.",
    "Larger is better.",
)
DIVERGENCE = Quantity(
    "divergence",
    "divergence from the teacher",
    "nat",
    "Mean Kullback-Leibler divergence of the student's probabilities from the teacher's, at temperature 1.",
    "Smaller is better.",
)


@OBJECTIVES.add("distillation")
@final
@dataclass(frozen=True)
class Distillation(AbstractObjective):
    r"""The teacher's probabilities as targets (Hinton et al. 2015), along with the labels if there are any.

    .. math:: L = w\,T^2\,\mathrm{KL}\bigl(p^{teacher}_T \,\|\, p_T\bigr) + (1 - w)\,\mathrm{CE}(t, p)

    with :math:`p_T = \mathrm{softmax}(z / T)`. The teacher sees the same augmented and mixed images as the student,
    at its own size and normalisation. Its classes must be those of the labels, in any order; without
    labels, they are the student's classes, and the weight is 1. Cost: a forward pass of the teacher for each step.
    """

    teacher: Subject
    """Any subject with a classifier, its edits included; it is not changed."""
    temperature: float = bounded_field(2.0, Bounds(above=0, most=1000))
    """T: larger values weigh the classes more equally."""
    weight: float = bounded_field(0.5, SHARE)
    """w: the teacher's share of the loss; the labels have the rest."""

    name = "distillation"
    figures = (AGREEMENT, DIVERGENCE, ACCURACY, NLL)
    larger = True

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.teacher.class_count:
            raise UserError(f"{self.teacher.name} has no classifier, so it cannot be a teacher.")
        if self.teacher.preprocessing.mean is None or self.teacher.preprocessing.std is None:
            raise UserError(
                f"The normalisation of {self.teacher.name} is not known, so it cannot take a student's images; "
                "load it with input=vitscope.PixelInput(...)."
            )

    def _module(self, device: torch.device) -> nn.Module:
        """The teacher on the device, made once."""
        held: tuple[torch.device, nn.Module] | None = vars(self).get("_held")
        if held is None or held[0] != device:
            held = vars(self)["_held"] = (device, compact(self.teacher, device))
        return held[1]

    @property
    def _names(self) -> tuple[str, ...]:
        """The teacher's classes; numbers if they have no names."""
        return self.teacher.classes or tuple(str(label) for label in range(self.teacher.class_count))

    def classes(self, images: Images) -> tuple[str, ...]:
        """The images' classes, which must be the teacher's; without labels, the teacher's."""
        own = self._names
        if images.labels is None:
            return own
        wanted = super().classes(images)
        if sorted(wanted) != sorted(own):
            raise UserError(
                f"The teacher, {self.teacher.name}, distinguishes {len(own)} classes ({', '.join(own[:3])}, ...), but "
                f"{images.name} has {len(wanted)} ({', '.join(wanted[:3])}, ...); to learn the teacher's classes, "
                "give images without labels (--label none)."
            )
        return wanted

    def facts(self) -> dict[str, object]:
        """The teacher by its name and weights, and the settings."""
        teacher = {"name": self.teacher.name, "fingerprint": self.teacher.fingerprint}
        edits = {"edits": [repr(edit) for edit in self.teacher.edits]} if self.teacher.edits else {}
        settings = {"temperature": self.temperature, "weight": self.weight}
        return {"name": self.name, "teacher": {**teacher, **edits}, **settings, **code_version(self)}

    def loss(self, forward: Forward, batch: TrainingBatch) -> Float[Tensor, ""]:
        """The weighted sum of the teacher's and the labels' part."""
        wanted = (self._logits(batch) / self.temperature).log_softmax(1)
        logits = forward(batch.images)
        found = (logits / self.temperature).log_softmax(1)
        taught = self.temperature**2 * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
        if batch.targets is None:
            return taught
        return self.weight * taught + (1 - self.weight) * functional.cross_entropy(logits, batch.targets)

    def evaluate(self, forward: Forward, batch: TrainingBatch) -> Mapping[str, Float[Tensor, " batch"]]:
        """Agreement and divergence, and accuracy and negative log-likelihood of labelled images."""
        logits, wanted = forward(batch.images).float(), self._logits(batch).log_softmax(1)
        apart = functional.kl_div(logits.log_softmax(1), wanted, reduction="none", log_target=True).sum(1)
        same = (logits.argmax(1) == wanted.argmax(1)).to(logits)
        labelled = {} if batch.labels is None else class_figures(logits, batch.labels)
        return {"agreement": same, "divergence": apart, **labelled}

    def _logits(self, batch: TrainingBatch) -> Float[Tensor, "batch classes"]:
        """The teacher's logits of the batch's images, in the order of the student's classes."""
        own, images = self.teacher.preprocessing, batch.images.float()
        before, after = (
            [torch.tensor(values, device=images.device).view(-1, 1, 1) for values in pair]
            for pair in ((batch.input.mean, batch.input.std), (own.mean, own.std))
        )
        if images.shape[1] != own.shape[0]:
            raise UserError(f"{self.teacher.name} takes {own.shape[0]} channels, but the student {images.shape[1]}.")
        if own.shape[1:] != tuple(images.shape[2:]):
            images = functional.interpolate(images, own.shape[1:], mode="bicubic", antialias=True)
        module = self._module(images.device)
        with torch.no_grad():
            logits = module((images * before[1] + before[0] - after[0]) / after[1]).float()
        return logits[:, [self._names.index(name) for name in batch.classes]]

    def __getstate__(self) -> dict[str, Any]:
        """The state sent to another device's process: the teacher without its anatomy, which holds functions."""
        own = {name: value for name, value in vars(self).items() if name != "_held"}
        return {**own, "teacher": dict(vars(self.teacher)) | {"anatomy": None}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state that was sent, and find the teacher's anatomy again."""
        teacher: dict[str, Any] = state["teacher"]
        anatomy = composition_of(teacher["module"])
        assert anatomy is not None, "a teacher that is sent is of a known family"
        whole: dict[str, Any] = {**teacher, "anatomy": with_edits(anatomy, teacher["edits"])}
        vars(self).update({**state, "teacher": Subject(**whole)})
