"""The project's own models as a library: the sizes of its vision transformer, and a trained one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.adapter import (
    LIBRARIES,
    AbstractLibrary,
    Outputs,
    Size,
    load_strictly,
    refuse_crop,
    refuse_options,
    refuse_unknown_options,
)
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.own.vit import SIZES, Vit, VitConfig
from vitscope.models.subject import Preprocessing

DIGITS = Path(__file__).with_name("digits.safetensors")
"""The embedded model: a ``vit-micro`` trained on scikit-learn's digits, 8 x 8 pixels, one patch a pixel."""


def make_vit(name: str, fields: Mapping[str, object], class_names: tuple[str, ...] | None) -> Vit:
    """A vision transformer of one of :data:`SIZES`, with other values for some of :class:`VitConfig`'s fields."""
    if name not in SIZES:
        raise UserError(f"vitscope has no model of its own named {name!r}; it has: {', '.join(SIZES)}.")
    known = [field.name for field in dataclasses.fields(VitConfig)]
    refuse_unknown_options(name, fields, known)
    values = {field: tuple(cast("list[float]", value)) if isinstance(value, list) else value
              for field, value in fields.items()}  # fmt: skip
    try:
        return Vit(dataclasses.replace(SIZES[name], **cast("dict[str, Any]", values)), class_names)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        given = ", ".join(f"{field}={value!r}" for field, value in fields.items())
        raise UserError(f"{name} cannot be made with {given}: {reason(error)}.") from error


@LIBRARIES.add("own")
@final
class Own(AbstractLibrary):
    """The project's own vision transformer in its sizes, and ``digits``, the one that comes trained."""

    name = "vitscope"

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """A size with random weights, or ``digits``, which is always trained; ``options`` are fields of its size."""
        if name == "digits":
            refuse_options("digits, which comes trained,", options)
            found = read_checkpoint(DIGITS)
            return load_strictly(make_vit("vit-micro", found.arguments, found.classes), dict(found.weights))
        if pretrained and name in SIZES:
            raise UserError(f"{name} has no pretrained weights; train it with `vitscope train {name}`, or use digits.")
        if name not in SIZES:
            raise UserError(f"vitscope has no model named {name!r}; it has: digits, {', '.join(SIZES)}.")
        return make_vit(name, options, None)

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``classes``, ``channels`` and ``image``, the side of a square."""
        if size.image is not None and size.image[0] != size.image[1]:
            raise UserError(f"vitscope's own models take square pictures, not {size.image[0]} x {size.image[1]}.")
        given = {"classes": size.classes, "channels": size.channels, "image": size.image and size.image[0]}
        return {name: value for name, value in given.items() if value is not None}

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
    def classes(cls, module: nn.Module) -> Outputs:
        """The classifier's width, and the names it was trained with."""
        model = cast(Vit, module)
        return Outputs(model.config.classes, model.class_names)

    @classmethod
    @override
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        return load_strictly(module, state)

    @classmethod
    def resample_weights(cls, module: nn.Module, image: tuple[int, int]) -> dict[str, Tensor]:
        """The weights with positions resampled (bicubic, antialiased) to the grid of a square of ``image`` pixels."""
        model = cast(Vit, module)
        before, after = (side // model.config.patch for side in (model.config.image, image[0]))
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        grid = state["positions"].T.unflatten(1, (before, before))[None]  # 1 dim row column
        resized = functional.interpolate(grid.float(), (after, after), mode="bicubic", antialias=True)
        return state | {"positions": resized[0].flatten(1).T.contiguous().to(grid.dtype)}

    @classmethod
    def layers(cls, module: nn.Module) -> dict[str, int]:
        """The stem is layer 0; each block adds one (the final norm belongs to the last block); the head is last."""
        depth = cast(Vit, module).config.depth
        found: dict[str, int] = {}
        for name, _ in module.named_parameters():
            first, second = name.split(".")[:2] if "." in name else (name, "")
            found[name] = int(second) + 1 if first == "blocks" else {"norm": depth, "head": depth + 1}.get(first, 0)
        return found
