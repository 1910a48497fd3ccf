"""torchvision as a library of models: creation by name, input, class names."""

import inspect
from difflib import get_close_matches
from typing import final

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
                f"torchvision could not fetch the weights of {name!r} ({error}); "
                "connect to the internet, or give a weight file."
            ) from error

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_classes``: torchvision's models take colour pictures, and most of any size."""
        if size.channels not in (None, 3):
            raise UserError(f"torchvision's models take 3 channels, not {size.channels}.")
        return {} if size.classes is None else {"num_classes": size.classes}

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

        That the module's 1,000 classes are these is a guess, which is said, unless the weights came with the name.
        """
        count, weights = _class_count(module), published_weights(module)
        if not weights or len(weights[0].meta["categories"]) != count:
            return Outputs(count)
        said = f"Its {count} classes are taken for those of torchvision's weights (ImageNet's), which are as many."
        return Outputs(count, tuple(weights[0].meta["categories"]), (said,))

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Loaded strictly, by torchvision's own names."""
        return load_strictly(module, state)


def _class_count(module: nn.Module) -> int:
    """Outputs of the last linear or convolutional layer of the head; 0 where there is none."""
    children = dict(module.named_children())
    widths = [last_width(children[name]) for name in HEADS if name in children]
    return next((width for width in reversed(widths) if width is not None), 0)
