"""What a trainer's checkpoint says about its model besides the weights: the architecture's name and its options."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from vitscope.measurement.errors import UserError
from vitscope.models.names import registered_names
from vitscope.models.subject import Preprocessing

_SETTINGS = (
    "args",
    "hyper_parameters",
    "datamodule_hyper_parameters",
    "hparams",
    "config",
    "cfg",
    "opt",
    "params",
    "meta",
)
"""Keys under which trainers store their settings."""
_INNER = ("model", "data", "dataset", "dataset_meta")
"""Keys of settings nested within those."""
_NAMES = ("arch", "architecture", "model", "model_name", "backbone", "encoder", "network")
"""Keys under which trainers store an architecture's name."""
_SHOWN = ("mean", "std", "crop_pct", "interpolation")
"""Settings of timm's trainer for the pictures."""
_CLASSES = (
    "class_names",
    "label_names",
    "classes",
    "CLASSES",
    "class_to_idx",
    "idx_to_class",
    "idx2class",
    "class2idx",
    "id2label",
    "label2id",
    "label_to_idx",
    "idx_to_label",
)
"""Keys under which trainers store the names of classes, or tables of them."""
_SIZES = ("input_size", "img_size", "image_size", "val_crop_size")
"""Keys under which trainers store the size of pictures in evaluation."""
_CHANGING = {"gp": "global_pool", "global_pool": "global_pool", "bn_eps": "bn_eps"}
"""Arguments of timm's trainer that change what a model computes but not the names of its weights."""
_NOT_OWN = (
    "num_classes",
    "in_chans",
    "name",
    "model_name",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
)
"""Arguments of timm's ``create_model`` that are not the model's own, or that follow from the weights."""


@dataclass(frozen=True)
class Recorded:
    """What a checkpoint says about its model."""

    names: tuple[str, ...] = ()
    """Models of the libraries that its architecture's name may mean, as in ``timm/vit_tiny_patch16_224``."""
    said: str | None = None
    """The architecture's name as it is in the file."""
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Arguments of timm's constructor."""
    image: tuple[int, int] | None = None
    """Height and width of the input."""
    shown: Mapping[str, object] = field(default_factory=dict[str, object])
    """Mean, deviation, crop and interpolation that the checkpoint sets for pictures."""

    def is_of(self, model: str) -> bool:
        """Whether it can describe ``model``: it names the same architecture, or none."""
        return not self.names or _bare(model) in map(_bare, self.names)

    def add_tag(self, model: str) -> str:
        """The name ``model``, with the tag of weights from the file if it has no tag of its own."""
        return next((name for name in self.names if _bare(name) == model), model)


def read_record(data: Mapping[str, object]) -> Recorded:
    """Read what the file says about its model. Raises ``UserError`` for arguments that no model can have."""
    settings = [data, *_settings(data)]
    said = next((str(one[key]) for one in settings for key in _NAMES if _is_name(one.get(key))), None)
    asked: dict[str, Any] = {}
    for one in reversed(settings[1:]):
        asked |= {key: value for key, value in one.items() if value is not None}
    options = {ours: asked[theirs] for theirs, ours in _CHANGING.items() if asked.get(theirs)}
    for key in ("model_kwargs", "model_args"):
        given = _mapping(asked.get(key) or data.get(key))
        options |= {name: value for name, value in given.items() if name not in _NOT_OWN}
    options = _pooling_options(options)
    _refuse_huge(options)
    told = {key: value for one in (asked, data) for key, value in one.items() if key in _SHOWN and _is_told(value)}
    if all(isinstance(asked.get(key), int) and asked[key] > 0 for key in ("val_crop_size", "val_resize_size")):
        told.setdefault("crop_pct", asked["val_crop_size"] / asked["val_resize_size"])
    of_model = any(isinstance(one.get(key), str) for one in settings for key in _NAMES)
    return Recorded(
        names=_models(said, data),
        said=said,
        options=options,
        image=_image(asked, options),
        shown=told if of_model else {},
    )


def class_names(data: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """The names of classes in a file, unchanged, each with its key; keys that only count classes are skipped."""
    found = ((key, one.get(key)) for one in (data, *_settings(data)) for key in _CLASSES)
    return tuple((key, names) for key, names in found if isinstance(names, Mapping | list | tuple) and names)


def _settings(data: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for key in _SETTINGS:
        found = _mapping(data.get(key))
        if found:
            yield found
        for part in _INNER:
            inner = _mapping(found.get(part))
            if inner:
                yield {("model_name" if (part, name) == ("model", "name") else name): inner[name] for name in inner}


def _mapping(value: object) -> Mapping[str, object]:
    if isinstance(value, argparse.Namespace):
        return vars(value)
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(_models(value, {}))


def _models(said: str | None, data: Mapping[str, object]) -> tuple[str, ...]:
    """The libraries' models of this name; only torchvision's if there is a ``best_acc1``, as in PyTorch's examples."""
    if said is None:
        return ()
    library, _, name = said.rpartition("/")
    libraries = (library,) if library in ("timm", "torchvision") else ("timm", "torchvision")
    found = tuple(f"{one}/{known}" for one in libraries if (known := _find_name(one, name)))
    of_torchvision = tuple(name for name in found if name.startswith("torchvision/"))
    return of_torchvision if of_torchvision and "best_acc1" in data else found


def _find_name(library: str, name: str) -> str | None:
    """The library's name for the model, with its tag if that is one of timm's; None if the library lacks it."""
    if library == "torchvision":
        return _bare(name) if _bare(name) in registered_names(library) else None
    if not registered_names("timm"):
        return None
    from vitscope.models.timm.construction import find_name

    return find_name(name)


def _bare(name: str) -> str:
    """The name without the tag of weights."""
    return name.partition(".")[0]


def _is_told(value: object) -> bool:
    """Whether a setting has a value: trainers leave unset ones empty."""
    return value is not None and not (isinstance(value, str | list | tuple) and not value)


def _pooling_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options with timm's name for pooling if a trainer (MAE's) only says whether tokens are averaged."""
    said = options.get("global_pool")
    if not isinstance(said, bool):
        return dict(options)
    rest = {name: value for name, value in options.items() if name != "global_pool"}
    return rest | {"global_pool": "avg"} if said else rest


def _image(asked: Mapping[str, Any], options: dict[str, object]) -> tuple[int, int] | None:
    """Height and width from any key that holds them: a side, two sides, or channels and two sides."""
    for found in (options.pop("img_size", None), *(asked.get(key) for key in _SIZES)):
        sides = [found, found] if isinstance(found, int) else list(found) if isinstance(found, list | tuple) else []
        if len(sides) in (2, 3) and all(isinstance(side, int) and 0 < side < 10_000 for side in sides):
            return sides[-2], sides[-1]
    return None


def _refuse_huge(options: Mapping[str, object]) -> None:
    """Raise for huge arguments: a file must not make a model larger than its own weights."""
    for name, value in options.items():
        numbers = value if isinstance(value, list | tuple) else (value,)
        limit = 1_000 if name in ("depth", "depths", "layers") else 100_000
        if any(isinstance(one, int | float) and not abs(one) < limit for one in numbers):
            raise UserError(f"The checkpoint says its model is made with {name}={value!r}, which is out of range.")


def note_ignored_input(path: Path, said: Recorded, shown: Preprocessing) -> tuple[str, ...]:
    """A note on settings for pictures in a file that torchvision's input does not follow."""
    crop = said.shown.get("crop_pct")
    resize = f"resize {round(max(shown.shape[1:]) / crop)}" if isinstance(crop, float) and 0 < crop <= 1 else ""
    own = {"mean": shown.mean, "std": shown.std, "interpolation": shown.text.split(", ")[1]}
    own |= {"crop_pct": crop if resize in shown.text.split(", ") else None}
    other = [f"{key} = {value!r:.60}" for key, value in said.shown.items() if own[key] != _plain(value)]
    if not other:
        return ()
    return (f"{path.name} sets {', '.join(other)} for pictures: that is not followed; give input=PixelInput(...).",)


def _plain(value: Any) -> object:  # noqa: ANN401 (a number, or numbers in a list, a tensor or an array)
    found: object = value.tolist() if hasattr(value, "tolist") else value
    return tuple(cast("list[object]", found)) if isinstance(found, list) else found
