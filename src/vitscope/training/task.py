"""A training, all decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vitscope.data.image import Images
from vitscope.models.pixels import PixelInput
from vitscope.models.start import Start
from vitscope.training.hook import AbstractHook
from vitscope.training.objective import AbstractObjective
from vitscope.training.observer import AbstractTrainingObserver
from vitscope.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Task:
    """A training, all decided: its recipe, what its model is made with, its images, and where it is kept."""

    recipe: Recipe
    arguments: Mapping[str, object]
    classes: tuple[str, ...]
    input: PixelInput
    crop: str
    images: Images
    """Those it is trained on, without the validation images."""
    validation: Images | None
    """Those that choose the epoch."""
    given: Int[np.ndarray, " images"] | None
    """The labels of the training images, if they are not their own."""
    objective: AbstractObjective
    hooks: tuple[AbstractHook, ...]
    folder: Path
    observer: AbstractTrainingObserver
    start: Start | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        assert self.recipe.model is not None, "a recipe is resolved before it is followed"
        return self.recipe.model
