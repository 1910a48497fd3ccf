"""Saved folders: a configuration and weights, read as data. No code is run, and nothing is read from elsewhere."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable
from vitscope.models.checkpoint import checkpoint_of
from vitscope.models.weight_file import Contents, read_contents
from vitscope.models.weight_sets import groups_of

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Names under which timm and transformers save weights, in order of preference."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "trainer_state")
"""Beginnings of other files that transformers' Trainer saves beside weights."""
_BYTES, _DEPTH, _REASON = 1 << 25, 50, 300
_SPARE_TENSORS, _SPARE_NUMBERS = 100, 1_000_000


@dataclass(frozen=True)
class Folder:
    """A folder of a saved model: its configuration, and its file of weights with the contents, if there is one.

    ``notes`` say which of several files it is. If weights are in parts, ``file`` is their index and ``contents`` holds
    all of them.
    """

    path: Path
    configuration: Mapping[str, Any]
    file: Path | None = None
    contents: Contents | None = None
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The first weights that are not an average, if there are any; empty without a file."""
        if self.file is None or self.contents is None:
            return {}
        return dict(checkpoint_of(self.file, self.contents).weights)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors in the file, of every set."""
        groups = groups_of(self.contents.data) if self.contents else ()
        return tuple(tensor for group in groups for tensor in group.tensors.values())


def read_folder(path: Path, weights: bool = True) -> Folder:
    """Read the folder's ``config.json`` and, unless ``weights`` is False, its weights, from one or more files in it.

    Raises ``UserError`` naming the file that cannot be read. ``file`` is None if there are no weights.
    """
    configuration = read_object(path / "config.json")
    found, others = _weight_files(path) if weights else (None, [])
    if found is None:
        return Folder(path, configuration)
    held = Contents(_read_shards(path, found)) if found.suffix == ".json" else read_contents(found)
    said = f"{path} holds weights in {found.name} and in {', '.join(others)}: those of {found.name} were taken."
    return Folder(path, configuration, found, held, (said,) if others else ())


def refuse_without_weights(folder: Folder) -> None:
    """Raise ``UserError`` for a folder that has only a configuration."""
    if folder.file is None:
        raise UserError(f"{folder.path} holds a configuration but no weights: give their file with --weights.")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises ``UserError`` naming the file and what is wrong with it."""
    try:
        if path.stat().st_size > _BYTES:
            raise UserError(f"{path} is over {_BYTES >> 20} MiB, too large for a configuration; give a model's folder.")
        found: object = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({complaint(error)}); save the model again.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is not JSON ({complaint(error)}); it may have been cut short: save the model again."
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__} instead of an object with the model's configuration.")
    _refuse_depth(found, path)
    return cast("dict[str, Any]", found)


def complaint(error: BaseException) -> str:
    """A library's error message in one line of at most 300 characters."""
    lines = printable(" ".join(str(error).split())) or type(error).__name__
    return (lines if len(lines) <= _REASON else lines[:_REASON].rsplit(" ", 1)[0] + " ...").rstrip(".")


@contextmanager
def no_larger_than(folder: Folder) -> Generator[None]:
    """Raise ``UserError`` as soon as a module under construction has far more weights than the folder's files hold.

    This keeps a configuration from using up the memory: build the module first without memory in this context.
    """
    stored = folder.tensors
    held = sum(tensor.numel() for tensor in stored)
    tensors = 4 * len(stored) + _SPARE_TENSORS if folder.file else 1 << 16
    numbers = 4 * held + _SPARE_NUMBERS if folder.file else 1 << 33
    seen: set[int] = set()
    total = 0

    def count(_: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal total
        if parameter is not None and id(parameter) not in seen:  # pyright: ignore[reportUnnecessaryComparison]
            seen.add(id(parameter))
            total += parameter.numel()
        if total > numbers or len(seen) > tensors:
            raise UserError(
                f"{folder.path}/config.json describes a model with more weights ({total:,} numbers up to {name}) than "
                f"its files hold ({held:,}): give the configuration that the weights were saved with."
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def make_without_memory(folder: Folder, make: Callable[[], nn.Module]) -> None:
    """Try a constructor without allocating memory, to refuse impossible or too large models first."""
    with no_larger_than(folder), torch.device("meta"):
        try:
            make()
        except NotImplementedError:
            return  # some constructors compute with values, which needs real memory


def _refuse_depth(found: object, path: Path) -> None:
    level: list[object] = [found]
    for _ in range(_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return
    raise UserError(f"{path} is nested more than {_DEPTH} levels deep; save the model again.")


def _weight_files(path: Path) -> tuple[Path | None, list[str]]:
    """The file to take, and the alternatives."""
    named = [path / name for name in _WEIGHTS if (path / name).is_file()]
    if named:
        whole = [one for one in named if one.suffix != ".json"]
        rest = [one.name for one in named[1:] if one in whole or named[0].suffix == ".json"]
        return named[0], rest
    loose = [
        one
        for one in sorted(path.iterdir())
        if one.is_file() and one.suffix in _SUFFIXES and not one.name.startswith(_NO_WEIGHTS)
    ]
    if len(loose) > 1:
        names = ", ".join(one.name for one in loose[:5])
        raise UserError(f"{path} has several files of weights ({names}): choose one, as in --weights {loose[0]}.")
    return (loose[0] if loose else None), []


def _read_shards(path: Path, index: Path) -> dict[str, object]:
    listed: object = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise UserError(f"{index} has no weight_map from names of weights to files; save the model again.")
    files = sorted(set(cast("dict[str, str]", listed).values()))
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise UserError(f"{index} names the file {name!r}, which is not in its folder; no other files are read.")
    state: dict[str, object] = {}
    for name in files:
        if not (path / name).is_file():
            raise UserError(f"{index} names the file {name!r}, which is missing; copy all files of the model.")
        state.update(checkpoint_of(path / name, read_contents(path / name)).weights)
    if missing := sorted(set(cast("dict[str, str]", listed)) - state.keys()):
        raise UserError(f"{index} names the weight {missing[0]!r}, which is in none of its files; copy them again.")
    return state
