"""The project's own models as a library: the sizes of its vision transformer, and one that is trained."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import LIBRARIES, AbstractLibrary, load_strictly, refuse_crop
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.own.vit import SIZES, Vit, VitConfig
from vitscope.models.subject import Preprocessing

DIGITS = Path(__file__).with_name("digits.safetensors")
"""The embedded model: a ``vit-micro`` trained on scikit-learn's digits, 8 x 8 pixels, one patch a pixel."""


def sized_vit(name: str, fields: Mapping[str, object], class_names: tuple[str, ...] | None) -> Vit:
    """A vision transformer of one of :data:`SIZES`, with other values for some of :class:`VitConfig`'s fields."""
    if name not in SIZES:
        raise UserError(f"There is no model of the project's own named {name!r}; there are: {', '.join(SIZES)}.")
    known = [field.name for field in dataclasses.fields(VitConfig)]
    if unknown := [field for field in fields if field not in known]:
        raise UserError(f"{name} has no field {', '.join(unknown)}; its fields are: {', '.join(known)}.")
    values = {field: tuple(cast("list[float]", value)) if isinstance(value, list) else value
              for field, value in fields.items()}  # fmt: skip
    return Vit(dataclasses.replace(SIZES[name], **cast("dict[str, Any]", values)), class_names)


@LIBRARIES.add("own")
@final
class Own(AbstractLibrary):
    """The project's own vision transformer in its sizes, and ``digits``, the one that comes trained."""

    name = "vitscope"

    @classmethod
    def create(cls, name: str, pretrained: bool) -> nn.Module:
        """A size with random weights, or ``digits``, which is always trained."""
        if name == "digits":
            found = read_checkpoint(DIGITS)
            return load_strictly(sized_vit("vit-micro", found.arguments, found.classes), dict(found.weights))
        if pretrained and name in SIZES:
            raise UserError(f"{name} has no pretrained weights; train it with `vitscope train {name}`, or use digits.")
        if name not in SIZES:
            raise UserError(f"vitscope has no model named {name!r}; it has: digits, {', '.join(SIZES)}.")
        return sized_vit(name, {}, None)

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Never: the project's own models are saved as one file."""
        del config
        return False

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The input of the model's configuration."""
        refuse_crop(cls.name, crop)
        return cast(Vit, module).config.input.preprocessing

    @classmethod
    def classes(cls, module: nn.Module) -> tuple[int, tuple[str, ...] | None]:
        """The classifier's width, and the names it was trained with."""
        model = cast(Vit, module)
        return model.config.classes, model.class_names

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Loaded strictly."""
        return load_strictly(module, state)
