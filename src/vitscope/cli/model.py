"""The model that a command works on: its name, its weights, and what its name leaves open."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vitscope.cli.paths import refuse_absent
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.names import refuse_unknown

if TYPE_CHECKING:
    from vitscope.models.subject import Subject


@dataclass(frozen=True)
class ModelRequest:
    """The model; each field is a flag."""

    model: str | None = None
    """digits (embedded), vit-micro ... vit-base, timm/NAME, torchvision/NAME, transformers/NAME, a save_pretrained
    folder, or a checkpoint that names its architecture: from vitscope train or another trainer."""
    pretrained: bool = False
    """Load the library's trained weights."""
    weights: str | None = None
    """Load weights from this file: .safetensors, or a trainer's .pt, .pth, .ckpt. It sets classes and channels."""
    ema: bool = False
    """If the file holds averaged and raw weights, take the averaged (EMA, SWA); the default."""
    raw: bool = False
    """If the file holds averaged and raw weights, take the raw."""
    part: str | None = None
    """Which of several sets of weights in the file: the key that leads to it, such as teacher."""
    classes: int | None = None
    """Number of classes; by default that of the file or the named model."""
    image_size: str | None = None
    """Input size in pixels: a side, or height x width, as in 64x256."""
    channels: int | None = None
    """Channels of the input."""
    options: tuple[str, ...] = field(default=(), metadata={"flag": "set"})
    """An argument of the library's constructor, as in global_pool=avg or patch_size=8; may be given several times."""
    crop: float | None = None
    """Share of the picture the centre crop keeps (timm, torchvision)."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        refuse_absent(self.weights, "--weights")
        refuse_unknown("digits" if self.model is None else self.model)
        if self.ema and self.raw:
            raise UserError("--ema takes the averaged weights and --raw the raw ones; give only one of them.")
        sides(self.image_size)
        arguments(self.options)

    def subject(self) -> "Subject":
        """Load the model on its device; ``UserError`` if the device is not available."""
        import torch

        from vitscope.models.load import load

        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            why = reason(error)
            raise UserError(
                f"The device {self.device!r} is not available here ({why}); give cpu, cuda, cuda:1 or mps."
            ) from error
        if torch.device(self.device).type == "meta":
            raise UserError("The device meta holds no numbers to examine; give cpu, cuda, cuda:1 or mps.")
        return load(
            "digits" if self.model is None else self.model,
            pretrained=self.pretrained,
            weights=self.weights,
            average=True if self.ema else False if self.raw else None,
            part=self.part,
            class_count=self.classes,
            image_size=sides(self.image_size),
            channels=self.channels,
            options=arguments(self.options),
            crop=self.crop,
            device=self.device,
        )


def sides(text: str | None) -> tuple[int, int] | None:
    """Height and width from ``96`` or ``64x256``."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:\s*[x×,]\s*([1-9]\d{0,4}))?", text.strip())
    if found is None:
        raise UserError(f"--image-size takes a side or height x width in pixels, as in 96 or 64x256, not {text!r}.")
    return int(found[1]), int(found[2] or found[1])


def arguments(texts: Sequence[str]) -> dict[str, object]:
    """Arguments from ``key=value`` texts; a value that is not a Python literal stays text."""
    given: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UserError(f"--set takes NAME=VALUE, as in patch_size=8, not {text!r}.")
        if name.strip() in given:
            raise UserError(f"--set gives {name.strip()} twice.")
        try:
            given[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            given[name.strip()] = value.strip()
    return given
