"""What the library asks of an adapter (one family of models) and of a library of models."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.subject import Composition, Preprocessing
from vitscope.runs.registry import Registry


@dataclass(frozen=True)
class Example:
    """A small randomly initialised model of a family, on which the laws of subjects are tested."""

    name: str
    build: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]


class AbstractAdapter(ABC):
    """Knows the anatomy of one family of models. One file, one registered final class."""

    name: ClassVar[str]
    """Library and family, as in ``timm/vit``."""

    @classmethod
    @abstractmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether this module is of the family."""

    @classmethod
    @abstractmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """The module taken apart. Raises ``UserError`` naming the part that cannot be read."""

    @classmethod
    def call_arguments(cls, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """What the upstream model must be given besides images to be deterministic; nothing for most."""
        del module, images
        return {}

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Example, ...]:
        """Small models that cover the family's variants."""


class AbstractLibrary(ABC):
    """A library of models: how its models are made, what their input is, what their outputs are called."""

    name: ClassVar[str]
    """The first part of a model's name, as in ``timm/vit_tiny_patch16_224``; also the module its classes live in."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, pretrained: bool) -> nn.Module:
        """The model of this name (without the library's part) or local ``save_pretrained`` folder."""

    @classmethod
    @abstractmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Whether a ``save_pretrained`` folder with this ``config.json`` is this library's."""

    @classmethod
    @abstractmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The input the module was made for; ``crop`` replaces the share of the picture that its centre crop keeps."""

    @classmethod
    @abstractmethod
    def classes(cls, module: nn.Module) -> tuple[int, tuple[str, ...] | None]:
        """How many classes the module tells apart (0: it has no classifier), and their names where known."""

    @classmethod
    @abstractmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """The module with these weights, loaded strictly; raises ``UserError`` naming what does not fit."""


ADAPTERS: Registry[AbstractAdapter] = Registry("adapter")
LIBRARIES: Registry[AbstractLibrary] = Registry("library")


def refuse_crop(library: str, crop: float | None) -> None:
    """Raise where a crop is given for models whose own preprocessing is all there is."""
    if crop is not None:
        raise UserError(f"A crop ({crop}) can be given for models of timm and torchvision, not of {library}.")


def checked_crop(crop: float) -> float:
    """The share, if it is one."""
    if not 0 < crop <= 1:
        raise UserError(f"The crop is {crop}; it is the share of the shorter side that is kept, above 0 and at most 1.")
    return crop


def load_strictly(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The module with these weights; what is missing, left over or of another shape is named."""
    own = module.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(own[name].shape)} in the model"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    problems = [*(f"missing {name}" for name in missing), *(f"unknown {name}" for name in surplus), *shapes]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UserError(
            f"The weights do not fit {type(module).__name__}: {'; '.join(problems[:4])}{more}. "
            "Give the architecture the file was saved from."
        )
    module.load_state_dict(state)
    return module
