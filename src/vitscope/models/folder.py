"""Saved folders: a configuration and weights, read as data. Nothing in them is run, fetched, or read from elsewhere."""

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
"""Names under which timm and transformers save weights, in the order in which they are preferred."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "trainer_state")
"""What transformers' Trainer keeps beside weights."""
_BYTES, _DEPTH, _REASON = 1 << 25, 50, 300
_SPARE_TENSORS, _SPARE_NUMBERS = 100, 1_000_000


@dataclass(frozen=True)
class Folder:
    """A folder of a saved model: its configuration, and its file of weights with what it holds if there is one.

    ``notes`` say which file of several it is. Of files in parts it is their index, and all that they hold.
    """

    path: Path
    configuration: Mapping[str, Any]
    file: Path | None = None
    contents: Contents | None = None
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The first weights that it holds which are no average; nothing without a file."""
        if self.file is None or self.contents is None:
            return {}
        return dict(checkpoint_of(self.file, self.contents).weights)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that are held, of every set."""
        groups = groups_of(self.contents.data) if self.contents else ()
        return tuple(tensor for group in groups for tensor in group.tensors.values())


def read_folder(path: Path, weights: bool = True) -> Folder:
    """The folder's ``config.json`` and, if asked for, its weights; one or more files inside the folder.

    Raises ``UserError`` naming the file that cannot be read. The file is None if there is none.
    """
    configuration = read_object(path / "config.json")
    found, others = _weight_files(path) if weights else (None, [])
    if found is None:
        return Folder(path, configuration)
    held = Contents(_read_shards(path, found)) if found.suffix == ".json" else read_contents(found)
    said = f"{path} holds weights in {found.name} and in {', '.join(others)}: those of {found.name} were taken."
    return Folder(path, configuration, found, held, (said,) if others else ())


def refuse_without_weights(folder: Folder) -> None:
    """Raise ``UserError`` for a folder that has a configuration alone."""
    if folder.file is None:
        raise UserError(f"{folder.path} holds a configuration and no weights: give their file by --weights.")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises ``UserError`` naming the file and what is wrong with it."""
    try:
        if path.stat().st_size > _BYTES:
            raise UserError(f"{path} is larger than a configuration ({_BYTES >> 20} MiB); give the folder of a model.")
        found: object = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as text in UTF-8 ({complaint(error)}); save the model again."
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is no JSON ({complaint(error)}); it may have been cut short: save the model again."
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__} in place of an object with the model's configuration.")
    _refuse_depth(found, path)
    return cast("dict[str, Any]", found)


def complaint(error: BaseException) -> str:
    """All that a library says is wrong, in one line of at most 300 characters."""
    lines = printable(" ".join(str(error).split())) or type(error).__name__
    return (lines if len(lines) <= _REASON else lines[:_REASON].rsplit(" ", 1)[0] + " ...").rstrip(".")


@contextmanager
def no_larger_than(folder: Folder) -> Generator[None]:
    """Raise ``UserError`` as soon as a module that is being made has far more weights than the folder's files hold.

    So that no configuration asks for all of the memory: a module is made without memory first, within this.
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
                f"{folder.path}/config.json describes a model of more weights (past {total:,} numbers, at {name}) than "
                f"its files hold ({held:,}): give the configuration that the weights were saved with."
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def make_without_memory(folder: Folder, make: Callable[[], nn.Module]) -> None:
    """Try a constructor without allocating memory, so that what is impossible or too large is refused first."""
    with no_larger_than(folder), torch.device("meta"):
        try:
            make()
        except NotImplementedError:
            return  # some constructors compute with numbers, which only real memory has


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
    raise UserError(f"{path} is nested more than {_DEPTH} deep, as no configuration is; save the model again.")


def _weight_files(path: Path) -> tuple[Path | None, list[str]]:
    """The file to take, and the others that might have been."""
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
        raise UserError(f"{path} has several files of weights ({names}): say which by --weights {loose[0]}.")
    return (loose[0] if loose else None), []


def _read_shards(path: Path, index: Path) -> dict[str, object]:
    listed: object = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise UserError(f"{index} has no weight_map of files by the names of weights; save the model again.")
    files = sorted(set(cast("dict[str, str]", listed).values()))
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise UserError(f"{index} names the file {name!r}, which is not one of its folder; nothing else is read.")
    state: dict[str, object] = {}
    for name in files:
        if not (path / name).is_file():
            raise UserError(f"{index} names the file {name!r}, which is not there; copy all files of the model.")
        state.update(checkpoint_of(path / name, read_contents(path / name)).weights)
    if missing := sorted(set(cast("dict[str, str]", listed)) - state.keys()):
        raise UserError(f"{index} names the weight {missing[0]!r}, which none of its files holds; copy them again.")
    return state
