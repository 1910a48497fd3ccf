"""A fully specified training."""

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
    """A fully specified training: its recipe, its model's arguments, its images and its folder."""

    recipe: Recipe
    arguments: Mapping[str, object]
    classes: tuple[str, ...]
    input: PixelInput
    crop: str
    images: Images
    """The images to train on, without the validation images."""
    validation: Images | None
    """The images that choose the epoch."""
    given: Int[np.ndarray, " images"] | None
    """The labels that replace the training images' own, if any."""
    objective: AbstractObjective
    hooks: tuple[AbstractHook, ...]
    folder: Path
    observer: AbstractTrainingObserver
    start: Start | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        assert self.recipe.model is not None, "a recipe is resolved before it is used"
        return self.recipe.model
