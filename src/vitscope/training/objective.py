"""Objectives: what a training makes small, and by which figures it is judged."""

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
"""A module as it is trained: logits of images."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """The images of one step, as the model takes them.

    In a step they are augmented and mixed, and ``targets`` are the classes' shares after Mixup, CutMix and label
    smoothing; in an evaluation they are as they are, and the targets are one-hot. ``labels`` are the classes of the
    images before mixing. Both are None if the images have no labels.
    """

    images: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, " batch"] | None
    targets: Float[Tensor, "batch classes"] | None
    input: PixelInput
    """How the images were normalised."""
    classes: tuple[str, ...]
    """What the model's outputs are called, in their order."""


class AbstractObjective(ABC):
    """What a training makes small. One file, one registered final class, a frozen dataclass of its settings.

    The loss of a step may draw from torch's global generator, which is seeded for each step.
    """

    name: ClassVar[str]
    """Its name in a recipe."""
    figures: ClassVar[tuple[Quantity, ...]]
    """What :meth:`evaluate` gives of each image; the first one chooses the epoch."""
    larger: ClassVar[bool]
    """Whether larger values of the first figure are better."""

    def classes(self, images: Images) -> tuple[str, ...]:
        """The classes that the model is to tell apart: those of the images.

        Raises ``UserError`` if the images have no labels.
        """
        if images.labels is None:
            raise UserError(f"{images.name} has no labels, which training needs; give class folders or a label column.")
        return images.classes or tuple(str(label) for label in range(int(images.labels.max()) + 1))

    def facts(self) -> dict[str, object]:
        """Its name and settings, as what a training is; with the version of code that is not the project's."""
        return {"name": self.name, **asdict(self), **code_version(self)}  # pyright: ignore[reportArgumentType]

    @abstractmethod
    def loss(self, forward: Forward, batch: TrainingBatch) -> Float[Tensor, ""]:
        """The mean loss of a step, whose gradient is followed."""

    @abstractmethod
    def evaluate(self, forward: Forward, batch: TrainingBatch) -> Mapping[str, Float[Tensor, " batch"]]:
        """Each figure of each image, by the names of :attr:`figures`; without gradient."""


OBJECTIVES: Registry[AbstractObjective] = Registry(
    "objective", "vitscope.training.objectives", AbstractObjective, settled=False
)
