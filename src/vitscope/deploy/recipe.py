"""Recipes: how the library's own model becomes the saved one, as JSON that a few lines of PyTorch carry out."""

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from vitscope.models.build import restore_module
from vitscope.models.checkpoint import Checkpoint
from vitscope.models.shortened import shorten
from vitscope.models.subject import Subject
from vitscope.models.surgery import Pointwise, is_pointwise

_MADE = {
    "timm": 'timm.create_model(recipe["model"], **recipe["arguments"])',
    "torchvision": 'torchvision.models.get_model(recipe["model"], **recipe["arguments"])',
    "transformers": 'getattr(transformers, recipe["model"])(transformers.AutoConfig.for_model(**recipe["arguments"]))',
}
_CHANGED = """for path in recipe["identity"]:
    model.set_submodule(path, nn.Identity())
for path, sizes in recipe["linear"].items():
    layers = [nn.Linear(*one) for one in sizes]  # inputs, outputs, bias
    model.set_submodule(path, layers[0] if len(layers) == 1 else nn.Sequential(*layers))
for path, (inputs, outputs, bias) in recipe["convolution"].items():
    model.set_submodule(path, nn.Conv2d(inputs, outputs, 1, bias=bias))
for path, values in recipe["attributes"].items():
    vars(model.get_submodule(path)).update(values)
for path, shape in recipe["parameters"].items():
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Parameter(torch.zeros(shape)))
"""

Recipe = Mapping[str, Any]


def recipe_of(subject: Subject, checkpoint: Checkpoint) -> Recipe | None:
    """The recipe of a checkpoint that :func:`~vitscope.models.saved.save` writes of the subject; None if there is none.

    ``library``, ``model`` and ``arguments`` make the library's own model; ``identity`` are its blocks that are left
    out, ``linear`` and ``convolution`` its layers of other sizes, ``attributes`` and ``parameters`` what else differs.
    Edits of the walk, such as fewer tokens, cannot be said, and the project's own models need the project.
    """
    library, _, name = (checkpoint.model or "").partition("/")
    if library not in _MADE:
        return None
    amended, identity = checkpoint.amendment, tuple[str, ...]()
    if amended is not None and amended.edits.edits:
        short = shorten(subject)
        if short is None:
            return None
        identity = short.removed
    arguments = cast("dict[str, object]", checkpoint.arguments.get("config", checkpoint.arguments))
    found: dict[str, Any] = {"library": library, "model": name, "arguments": dict(arguments), "identity": identity}
    found |= {"linear": {}, "convolution": {}, "attributes": {}, "parameters": {}}
    with torch.random.fork_rng(devices=[]):  # building a model draws random weights
        module = restore_module(checkpoint)
    for path, change in checkpoint.changes.items():
        if not _say(found, path, module.get_submodule(path), cast("dict[str, Any]", change)):
            return None
    return found


def _say(recipe: dict[str, Any], path: str, part: nn.Module, change: Mapping[str, Any]) -> bool:
    """Add the change of one part; False if it cannot be said."""
    layers = tuple(part) if isinstance(part, nn.Sequential) and "rank" in change else (part,)
    if all(isinstance(one, nn.Linear) for one in layers):
        recipe["linear"][path] = [_sizes(cast(Pointwise, one)) for one in layers]
    elif is_pointwise(part):
        recipe["convolution"][path] = _sizes(part)
    else:
        tensors: dict[str, Any] = change.get("tensors", {})
        if any("value" in one or name in part._buffers for name, one in tensors.items()):  # pyright: ignore[reportPrivateUsage]
            return False
        recipe["parameters"] |= {f"{path}.{name}".lstrip("."): one["shape"] for name, one in tensors.items()}
        rest = {name: value for name, value in change.items() if name != "tensors"}
        recipe["attributes"] |= {path: rest} if rest else {}
    return True


def _sizes(layer: Pointwise) -> list[int | bool]:
    return [layer.weight.shape[1], layer.weight.shape[0], layer.bias is not None]


def changes_nothing(recipe: Recipe) -> bool:
    """Whether the library's model needs nothing but the weights."""
    return not any(recipe[name] for name in ("identity", "linear", "convolution", "attributes", "parameters"))


def recipe_lines(recipe: Recipe) -> str:
    """A program that makes the model from recipe.json and model.safetensors, without this project."""
    library = recipe["library"]
    made = _MADE[library]
    if changes_nothing(recipe) and library != "transformers":
        arguments = "".join(f", {name}={value!r}" for name, value in recipe["arguments"].items())
        named = "timm.create_model" if library == "timm" else "torchvision.models.get_model"
        begin = f'import {library}\nfrom safetensors.torch import load_file\n\nmodel = {named}("{recipe["model"]}"'
        return f'{begin}{arguments}).eval()\nmodel.load_state_dict(load_file("model.safetensors"))\n'
    return (
        f"import json\n\nimport {library}\nimport torch\nfrom safetensors.torch import load_file\n"
        f'from torch import nn\n\nrecipe = json.load(open("recipe.json"))\nmodel = {made}.eval()\n{_CHANGED}'
        'model.load_state_dict(load_file("model.safetensors"))\n'
    )


def recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON."""
    return json.dumps(recipe, indent=2) + "\n"
