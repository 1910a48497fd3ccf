"""The interfaces of an adapter (one family of models) and of a library of models."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.models.architectures import Shapes, nearest_architectures
from vitscope.models.folder import Folder
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
        """The module taken apart. Raises ``UserError`` naming a part that cannot be read."""

    @classmethod
    def call_arguments(cls, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Arguments, besides images, that make the upstream model deterministic; none for most families."""
        del module, images
        return {}

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Example, ...]:
        """Small models that cover the family's variants."""


@dataclass(frozen=True)
class Size:
    """The number of classes, pixels and channels a model is made for; None keeps the default of its name."""

    classes: int | None = None
    """Outputs of the classifier; 0 for none."""
    image: tuple[int, int] | None = None
    """Height and width of the input in pixels."""
    channels: int | None = None
    """Channels of the input: 1 for grey, 3 for colour."""

    def __post_init__(self) -> None:
        asked = (("classes", self.classes, 0), ("channels", self.channels, 1), ("pixels", self.image, 1))
        for what, value, least in asked:
            if value is not None and min(value if isinstance(value, tuple) else (value,)) < least:
                raise UserError(f"A model cannot have {value} {what}; give at least {least}.")


@dataclass(frozen=True)
class Outputs:
    """``count`` classes (0: no classifier, the outputs are features), their names if known, and notes on guesses."""

    count: int
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """A module rebuilt from a folder, and notes that a reader of its numbers needs."""

    module: nn.Module
    notes: tuple[str, ...] = ()


class AbstractLibrary(ABC):
    """A library of models: how its models are made, what their input is, what their outputs are called."""

    name: ClassVar[str]
    """The first part of a model's name, as in ``timm/vit_tiny_patch16_224``; also the module its classes live in."""
    renames: ClassVar[bool] = False
    """Whether ``load_weights`` also accepts names of earlier versions, which ``renamed`` cannot translate."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this name (without the library's part).

        ``options`` are arguments of the library's own constructor. Raises ``UserError`` naming one it does not accept.
        """

    @classmethod
    @abstractmethod
    def options(cls, size: Size) -> dict[str, object]:
        """The size as arguments of the library's constructor, for ``create``; None values are left out."""

    @classmethod
    @abstractmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Whether a ``save_pretrained`` folder with this ``config.json`` belongs to this library."""

    @classmethod
    def from_folder(cls, folder: Folder) -> Restored:
        """The model that the configuration of this library's folder describes, with random weights.

        A model far larger than the weights in the folder is refused.
        """
        raise UserError(f"{cls.name} does not save folders, so it cannot load {folder.path}.")

    @classmethod
    @abstractmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The input the module was made for; ``crop`` replaces the share of the picture that its centre crop keeps."""

    @classmethod
    @abstractmethod
    def classes(cls, module: nn.Module) -> Outputs:
        """The module's number of classes (0: it has no classifier), and their names if known."""

    @classmethod
    @abstractmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """The module with these weights, loaded strictly; raises ``UserError`` naming what does not fit."""

    @classmethod
    def load_saved(cls, module: nn.Module, state: dict[str, Tensor]) -> Restored:
        """As ``load_weights``, but leaves out weights of parts that the module lacks, and notes it."""
        return Restored(cls.load_weights(module, state))

    @classmethod
    def resample_weights(cls, module: nn.Module, image: tuple[int, int]) -> dict[str, Tensor]:
        """Copies of the module's weights for another image size, with resampled position embeddings."""
        raise UserError(f"Weights of {cls.name} models cannot be resampled to {image[0]} x {image[1]} pixels.")

    @classmethod
    def layers(cls, module: nn.Module) -> dict[str, int]:
        """The layer of each parameter, from the stem (0) to the head, for layer-wise decay of learning rates.

        Raises ``UserError`` if the library does not define it.
        """
        raise UserError(f"The layers of {type(module).__name__} are not known here; leave layer_decay out.")

    @classmethod
    def update_names(cls, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights with names of earlier versions replaced by today's; unchanged if there are none."""
        del module
        return state


ADAPTERS: Registry[AbstractAdapter] = Registry("adapter")
LIBRARIES: Registry[AbstractLibrary] = Registry("library")


def refuse_options(what: str, options: Mapping[str, object]) -> None:
    """Raise if constructor arguments are given for a model that already exists."""
    if options:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise UserError(f"{what} already defines its model; {given} can only be given with a model's name.")


def refuse_unknown_options(model: str, options: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise for an argument that the model's constructor does not accept, and suggest similar ones."""
    names = sorted(set(known))
    for name in options:
        if name not in names:
            near = nearest(name, names) or f"; it takes {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
            raise UserError(f"{model} takes no argument {name!r}{near}.")


def refuse_crop(library: str, crop: float | None) -> None:
    """Raise if a crop is given for models whose preprocessing is fixed."""
    if crop is not None:
        raise UserError(f"A crop ({crop}) can be given for models of timm and torchvision, not for {library}.")


def check_crop(crop: float) -> float:
    """Return ``crop`` if it is a share above 0, else raise."""
    if not 0 < crop <= 1:
        raise UserError(f"The crop is {crop}; give the share of the shorter side to keep, above 0 and at most 1.")
    return crop


def load_strictly(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load these weights into the module; raise naming what is missing, left over or of another shape or kind."""
    refuse_misfit(module, state)
    module.load_state_dict(state)
    return module


def refuse_misfit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise ``UserError`` naming what is missing, left over or of another shape or kind in these weights."""
    own, found = ({name: tuple(one.shape) for name, one in each.items()} for each in (module.state_dict(), state))
    if own != found:
        raise misfit(type(module).__name__, own, found)
    for name, value in module.state_dict().items():
        if value.is_floating_point() != state[name].is_floating_point() or state[name].is_quantized:
            kinds = f"{state[name].dtype} in the file and {value.dtype} in the model".replace("torch.", "")
            raise UserError(f"The weights do not fit {type(module).__name__}: {name} is {kinds}.")


def misfit(model: str, own: Shapes, found: Shapes) -> UserError:
    """The error for weights that do not fit: names and shapes that differ, and the architecture they resemble."""
    shapes = [f"{name} is {found[name]} in the file and {own[name]} in the model"
              for name in sorted(own.keys() & found.keys()) if own[name] != found[name]]  # fmt: skip
    problems = filter(
        None,
        (
            _list_names("missing", sorted(own.keys() - found.keys()), own),
            _list_names("unknown", sorted(found.keys() - own.keys()), found),
            "; ".join(shapes[:2]) + (f" and {len(shapes) - 2} more" if len(shapes) > 2 else ""),
        ),
    )
    like = nearest_architectures(found)
    meant = f"they {'are those' if like[1] else 'look like those'} of {like[0]}" if like else ""
    return UserError(
        f"The weights do not fit {model}: {'; '.join(problems)}. "
        f"Give the architecture the file was saved from{f' ({meant})' if meant else ''}."
    )


def _list_names(what: str, names: list[str], shapes: Shapes) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{what} {', '.join(f'{name} {shapes[name]}' for name in names[:2])}{more}" if names else ""
