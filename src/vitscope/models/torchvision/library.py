"""torchvision as a library of models: creation by name, input, class names."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torchvision import models

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import (
    LIBRARIES,
    AbstractLibrary,
    Outputs,
    Size,
    load_strictly,
    refuse_unknown_options,
)
from vitscope.models.classes import last_width
from vitscope.models.subject import Preprocessing
from vitscope.models.torchvision.input import HEADS, published_weights, torchvision_input


@LIBRARIES.add("torchvision")
@final
class Torchvision(AbstractLibrary):
    """torchvision's classification models: any name of ``torchvision.models.list_models(torchvision.models)``."""

    name = "torchvision"

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this name with random weights, or with torchvision's default pretrained ones."""
        names = models.list_models(module=models)
        if name not in names:
            near = get_close_matches(name, names, n=5) or names[:5]
            raise UserError(f"torchvision has no classification model named {name!r}; some it has: {', '.join(near)}.")
        sides = options.get("image_size")
        if isinstance(sides, tuple):  # from :meth:`options`, for any model; a number is for the constructor
            return _of_size(cls.create, name, pretrained, cast("tuple[int, int]", sides), options)
        try:
            return models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
        except (TypeError, ValueError, AssertionError) as error:
            with torch.device("meta"):
                taken = inspect.signature(type(models.get_model(name, weights=None)).__init__).parameters
            refuse_unknown_options(f"torchvision/{name}", options, taken.keys() - {"self", "args", "kwargs"})
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            why = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"torchvision's {name} cannot be made with {given}: {why}.") from error
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision could not fetch the weights of {name!r} ({str(error).splitlines()[0].rstrip(':')}); "
                "connect to the internet, or give a weight file."
            ) from error

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_classes``, and ``image_size`` as height and width: torchvision's models take colour pictures."""
        if size.channels not in (None, 3):
            raise UserError(f"torchvision's models take 3 channels, not {size.channels}.")
        given = {"num_classes": size.classes, "image_size": size.image}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Torchvision saves no folders."""
        del config
        return False

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The transform of the weights published for its architecture; ImageNet's usual one if there are none."""
        return torchvision_input(module, crop)

    @classmethod
    def classes(cls, module: nn.Module) -> Outputs:
        """The classifier's width; ImageNet's categories, which all published weights have, if they are as many.

        Taking these names for the module's 1,000 classes is a guess, which is noted.
        """
        count, weights = _class_count(module), published_weights(module)
        if not weights or len(weights[0].meta["categories"]) != count:
            return Outputs(count)
        said = f"Its {count} classes are assumed to be those of torchvision's weights (ImageNet's), which have as many."
        return Outputs(count, tuple(weights[0].meta["categories"]), (said,))

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Load strictly, by torchvision's own names."""
        return load_strictly(module, state)


def _of_size(
    create: Callable[..., nn.Module], name: str, pretrained: bool, sides: tuple[int, int], options: dict[str, object]
) -> nn.Module:
    """The model for pictures of this size: transformers are built for it, all others are shown it."""
    rest = {key: value for key, value in options.items() if key != "image_size"}
    kind = models.get_model_builder(name).__module__.rpartition(".")[2]
    if kind == "maxvit":
        return create(name, pretrained, **rest, input_size=sides)
    if kind != "vision_transformer":
        module = create(name, pretrained, **rest)
        cast(Any, module).shown_size = sides
        return module
    if sides[0] != sides[1]:
        raise UserError(f"torchvision's {name} takes square pictures, not {sides[0]} x {sides[1]}.")
    return create(name, pretrained, **rest, image_size=sides[0])


def _class_count(module: nn.Module) -> int:
    """Outputs of the last linear or convolutional layer of the head; 0 if there is none."""
    children = dict(module.named_children())
    widths = [last_width(children[name]) for name in HEADS if name in children]
    return next((width for width in reversed(widths) if width is not None), 0)
