"""Write the index of architectures: ``python docs/architectures.py``, when timm or torchvision has new ones.

It makes each classifier of the two libraries without memory for its weights, in some 20 minutes.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import timm
import torch
from torchvision import models

from vitscope.models.architectures import INDEX, Architecture, architecture_entry

_HEADS = ("head", "fc", "classifier", "heads")
"""Names of torchvision's classifiers; timm's models name theirs themselves."""


def every() -> Iterator[Architecture]:
    """All architectures that can be made, timm's first."""
    libraries: dict[str, tuple[list[str], Callable[[str], Any]]] = {
        "timm": (timm.list_models(), timm.create_model),
        "torchvision": (models.list_models(module=models), models.get_model),
    }
    for library, (names, build) in libraries.items():
        for name in names:
            try:
                yield architecture(f"{library}/{name}", lambda: build(name))  # noqa: B023 (called at once)
            except Exception as error:  # a model that cannot be made cannot be in the index
                print(f"{library}/{name}: {type(error).__name__}: {error}", file=sys.stderr)


def architecture(name: str, build: Callable[[], Any]) -> Architecture:
    """The entry of one architecture."""
    try:
        with torch.device("meta"):
            module = build()
    except NotImplementedError:  # its constructor reads its own weights
        module = build()
    said = (getattr(module, "pretrained_cfg", None) or {}).get("classifier")
    heads = (said,) if isinstance(said, str) else tuple(said or _HEADS)
    return architecture_entry(name, {key: tuple(value.shape) for key, value in module.state_dict().items()}, heads)


if __name__ == "__main__":
    INDEX.write_text("[\n" + ",\n".join(json.dumps(astuple(one)) for one in every()) + "\n]\n")
