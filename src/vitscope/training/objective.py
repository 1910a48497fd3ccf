"""Objectives: what a training minimises, and the figures that judge it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from vitscope.data.image import Images
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.models.pixels import PixelInput
from vitscope.runs.code import code_version
from vitscope.runs.registry import Registry

Forward = Callable[[Tensor], Tensor]
"""The module in training, as a function from images to logits."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """The images of one step, as the model takes them.

    In a training step the images are augmented and mixed, and ``targets`` are the classes' shares after Mixup, CutMix
    and label smoothing; in an evaluation the images are unchanged and the targets one-hot. ``labels`` are the classes
    before mixing. Both are None if the images have no labels.
    """

    images: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, " batch"] | None
    targets: Float[Tensor, "batch classes"] | None
    input: PixelInput
    """How the images were normalised."""
    classes: tuple[str, ...]
    """Names of the model's outputs, in their order."""


class AbstractObjective(ABC):
    """What a training minimises. One file, one registered final class, a frozen dataclass of its settings.

    The loss of a step may draw from torch's global generator, which is seeded for each step.
    """

    name: ClassVar[str]
    """Its name in a recipe."""
    figures: ClassVar[tuple[Quantity, ...]]
    """What :meth:`evaluate` returns for each image; the first one chooses the epoch."""
    larger: ClassVar[bool]
    """Whether larger values of the first figure are better."""

    def classes(self, images: Images) -> tuple[str, ...]:
        """The classes that the model distinguishes: those of the images.

        Raises ``UserError`` if the images have no labels.
        """
        if images.labels is None:
            raise UserError(f"{images.name} has no labels, which training needs; give class folders or a label column.")
        return images.classes or tuple(str(label) for label in range(int(images.labels.max()) + 1))

    def facts(self) -> dict[str, object]:
        """Name and settings, as part of the training's identity, with the version of third-party code."""
        return {"name": self.name, **asdict(self), **code_version(self)}  # pyright: ignore[reportArgumentType]

    @abstractmethod
    def loss(self, forward: Forward, batch: TrainingBatch) -> Float[Tensor, ""]:
        """The mean loss of a step, which is differentiated."""

    @abstractmethod
    def evaluate(self, forward: Forward, batch: TrainingBatch) -> Mapping[str, Float[Tensor, " batch"]]:
        """Each figure of each image, by the names of :attr:`figures`; without gradient."""


OBJECTIVES: Registry[AbstractObjective] = Registry(
    "objective", "vitscope.training.objectives", AbstractObjective, settled=False
)
