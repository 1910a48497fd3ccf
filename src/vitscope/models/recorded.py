"""What a trainer's checkpoint says of its model besides the weights: the architecture's name and how it was made."""

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
"""Where trainers keep what they were asked."""
_INNER = ("model", "data", "dataset", "dataset_meta")
"""Where settings are kept within those."""
_NAMES = ("arch", "architecture", "model", "model_name", "backbone", "encoder", "network")
"""What trainers call an architecture's name."""
_SHOWN = ("mean", "std", "crop_pct", "interpolation")
"""What timm's trainer was told of the pictures."""
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
"""What trainers call the names of classes, or tables of them."""
_SIZES = ("input_size", "img_size", "image_size", "val_crop_size")
"""What trainers call the size of the pictures that they are judged by."""
_CHANGING = {"gp": "global_pool", "global_pool": "global_pool", "bn_eps": "bn_eps"}
"""Arguments of timm's trainer that change what a model computes and not the names of its weights."""
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
"""What trainers give to timm's ``create_model`` besides arguments of the model, or what the weights say themselves."""


@dataclass(frozen=True)
class Recorded:
    """What a checkpoint says of its model."""

    names: tuple[str, ...] = ()
    """Models of the libraries that its architecture's name may mean, as in ``timm/vit_tiny_patch16_224``."""
    said: str | None = None
    """The architecture's name as it is in the file."""
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Arguments of timm's constructor."""
    image: tuple[int, int] | None = None
    """Height and width of the input."""
    shown: Mapping[str, object] = field(default_factory=dict[str, object])
    """Mean, deviation, crop and interpolation that were chosen for the pictures."""

    def is_of(self, model: str) -> bool:
        """Whether it can be what is said of the model that is named: of this architecture, or of none by name."""
        return not self.names or _bare(model) in map(_bare, self.names)

    def tagged(self, model: str) -> str:
        """The model that is named, with the tag of its weights that the file has if the name is without one."""
        return next((name for name in self.names if _bare(name) == model), model)


def read_record(data: Mapping[str, object]) -> Recorded:
    """What the file says. Raises ``UserError`` for arguments that no model has."""
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
    """The names of classes in a file, as they are there, each with its key; none of what only counts the classes."""
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
    """The libraries' models of this name. PyTorch's own examples, which are torchvision's, keep a ``best_acc1``."""
    if said is None:
        return ()
    library, _, name = said.rpartition("/")
    libraries = (library,) if library in ("timm", "torchvision") else ("timm", "torchvision")
    found = tuple(f"{one}/{known}" for one in libraries if (known := _known_name(one, name)))
    of_torchvision = tuple(name for name in found if name.startswith("torchvision/"))
    return of_torchvision if of_torchvision and "best_acc1" in data else found


def _known_name(library: str, name: str) -> str | None:
    """The name under which the library makes the model, with its tag if that is one of timm's; None if it is none."""
    if library == "torchvision":
        return _bare(name) if _bare(name) in registered_names(library) else None
    if not registered_names("timm"):
        return None
    from vitscope.models.timm.construction import known_name

    return known_name(name)


def _bare(name: str) -> str:
    """Without the tag of weights."""
    return name.partition(".")[0]


def _is_told(value: object) -> bool:
    """Whether a setting says something: trainers leave those that nobody chose empty."""
    return value is not None and not (isinstance(value, str | list | tuple) and not value)


def _pooling_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options in timm's words for pooling, where a trainer (MAE's) says only whether tokens are averaged."""
    said = options.get("global_pool")
    if not isinstance(said, bool):
        return dict(options)
    rest = {name: value for name, value in options.items() if name != "global_pool"}
    return rest | {"global_pool": "avg"} if said else rest


def _image(asked: Mapping[str, Any], options: dict[str, object]) -> tuple[int, int] | None:
    """Height and width, from whatever they are called: a side, two sides, or channels first."""
    for found in (options.pop("img_size", None), *(asked.get(key) for key in _SIZES)):
        sides = [found, found] if isinstance(found, int) else list(found) if isinstance(found, list | tuple) else []
        if len(sides) in (2, 3) and all(isinstance(side, int) and 0 < side < 10_000 for side in sides):
            return sides[-2], sides[-1]
    return None


def _refuse_huge(options: Mapping[str, object]) -> None:
    """A file must not make a model of any size before its weights are seen to be of that size."""
    for name, value in options.items():
        numbers = value if isinstance(value, list | tuple) else (value,)
        limit = 1_000 if name in ("depth", "depths", "layers") else 100_000
        if any(isinstance(one, int | float) and not abs(one) < limit for one in numbers):
            raise UserError(f"The checkpoint says its model is made with {name}={value!r}, which no model is.")


def ignored_input(path: Path, said: Recorded, shown: Preprocessing) -> tuple[str, ...]:
    """What a file says of its pictures that a model of torchvision's is not shown."""
    crop = said.shown.get("crop_pct")
    resize = f"resize {round(max(shown.shape[1:]) / crop)}" if isinstance(crop, float) and 0 < crop <= 1 else ""
    own = {"mean": shown.mean, "std": shown.std, "interpolation": shown.text.split(", ")[1]}
    own |= {"crop_pct": crop if resize in shown.text.split(", ") else None}
    other = [f"{key} = {value!r:.60}" for key, value in said.shown.items() if own[key] != _plain(value)]
    if not other:
        return ()
    return (f"{path.name} says of its pictures {', '.join(other)}: that is not followed; give input=PixelInput(...).",)


def _plain(value: Any) -> object:  # noqa: ANN401 (a number, or numbers in a list, a tensor or an array)
    found: object = value.tolist() if hasattr(value, "tolist") else value
    return tuple(cast("list[object]", found)) if isinstance(found, list) else found
