"""Files of weights, recognised by their first bytes and not by their name; no code in them is run."""

import argparse
import collections
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import first_line, reason

_SAVE = "save only its weights where it was made, with torch.save(model.state_dict(), FILE) or as .safetensors"

_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The first bytes of files of ``torch.save`` that are older than its archives."""

_NEITHER = "is neither safetensors nor a file of torch.save"

_NUMBERS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "longdouble", "complex64", "complex128"),
    *("str", "bytes", "datetime64", "timedelta64"),
)
"""NumPy types that hold no objects."""

_INERT = (
    *(f"{home}.{kind}" for home in ("builtins", "__builtin__") for kind in ("slice", "range", "xrange", "frozenset")),
    *(f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")),
    "decimal.Decimal",
)
"""Values that are read as their pickled arguments, because none of them matters for weights."""

_PLAIN = (list, dict, set, tuple, int, float, str, bool)
"""Default factories that a ``defaultdict`` may have."""


@dataclass(frozen=True)
class Contents:
    """The contents of a file: nested mappings, lists, tensors and plain values; and a safetensors file's metadata."""

    data: Mapping[str, object]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def read_contents(path: Path) -> Contents:
    """The contents of a ``.safetensors`` file, or of one of ``torch.save`` read with ``weights_only=True``.

    Besides tensors and plain values, a file of ``torch.save`` may hold trainers' settings: an ``argparse.Namespace``,
    paths, numbers and arrays of NumPy. Raises ``UserError`` naming the file and what it is instead, or the first other
    class in it. Cost: the file is mapped, and read on demand.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file of weights in it, such as {path / 'model.safetensors'}.")
    if not path.is_file():
        raise UserError(f"There is no checkpoint file {path}.")
    with path.open("rb") as file:
        head = file.read(300)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return _safetensors(path)
    if head[:4] == b"PK\x03\x04":
        return Contents(_unpickle(path, _is_zipped(path)))
    if head[:1] == b"\x80":
        if _LEGACY not in head[:20]:
            raise UserError(
                f"{path} is a pickle, but not from torch.save; it cannot be read as weights alone, and "
                f"a pickled model is never run; {_SAVE}."
            )
        return Contents(_unpickle(path, mapped=False))
    what = _describe(head)
    if path.suffix == ".safetensors" and what == _NEITHER:
        raise UserError(f"{path} cannot be read as safetensors (it has no header); it may have been cut short.")
    raise UserError(f"{path} {what}, and holds no weights that can be read; give a .safetensors or .pt file.")


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = cast("dict[str, str]", file.metadata() or {})
            return Contents({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, MemoryError, AttributeError) as error:
        why = reason(error)
        raise UserError(f"{path} cannot be read as safetensors ({why}); it may have been cut short.") from error


def _describe(head: bytes) -> str:
    """A description of a file that begins with these bytes."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    for begins, what in (
        (b"\x1f\x8b", "is compressed with gzip (unpack it first)"),
        (b"\x89HDF", "is an HDF5 file, as Keras writes them"),
        (b"\x93NUMPY", "is a NumPy array"),
        (b"GGUF", "is a GGUF file"),
    ):
        if head.startswith(begins):
            return what
    if head[257:262] == b"ustar":
        return "is a tar archive (unpack it first)"
    try:
        head.decode("utf-8", "strict" if len(head) < 300 else "ignore")
    except UnicodeDecodeError:
        return _NEITHER
    plain = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not the file itself (download it again)"
    return "is a text file" if plain else _NEITHER


def _is_zipped(path: Path) -> bool:
    """True for an archive of ``torch.save``. Raises for any other, and for one that was cut short or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} was cut short or damaged ({reason(error)}); copy it again.") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{path} is a TorchScript program, which is never run here; {_SAVE}.")
    if not any(name.endswith("/data.pkl") for name in names):
        raise UserError(f"{path} is an archive, but not from torch.save (it holds {first_line(names[0])}).")
    return True


def _unpickle(path: Path, mapped: bool) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_allowed_types()):
            warnings.simplefilter("ignore")
            found = _load(path, mapped)
    except Exception as error:  # a hostile file chooses what is raised
        raise UserError(_unreadable(path, error)) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__} that is not a state_dict of tensors; {_SAVE}.")
    return cast("Mapping[str, object]", found)


def _load(path: Path, mapped: bool) -> object:
    if path.suffix == ".safetensors":  # PyTorch reads any path with this suffix as safetensors, whatever it holds
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _unreadable(path: Path, error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"class '?([\w.]+)", str(error))
    if not isinstance(error, pickle.UnpicklingError) or named is None:
        if _is_whole(path):
            return f"{path} holds more than weights and settings, and a pickled model is never run; {_SAVE}."
        return f"{path} was cut short or damaged, and cannot be read as weights alone; copy it again, or {_SAVE}."
    what = f"{'is a whole' if _is_model(path) else 'holds a'} {named[1]}"
    return f"{path} cannot be read as weights alone: it {what}, and a pickled model is never run; {_SAVE}."


def _is_whole(path: Path) -> bool:
    """Whether it is an archive whose parts all match their checksums. Cost: reads the whole file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a hostile file chooses what is raised
        return False


def _is_model(path: Path) -> bool:
    """Whether layers of PyTorch are pickled in the file; False if its contents cannot be listed."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # only the message depends on it
        return False
    return any(name.startswith("torch.nn.modules.") for name in names)


def _allowed_types() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Harmless types in which trainers store their settings, by the names under which they are pickled."""
    found: list[Any] = [
        (argparse.Namespace, "argparse.Namespace"),
        (types.SimpleNamespace, "types.SimpleNamespace"),
        (collections.defaultdict, "collections.defaultdict"),
        *((kind, f"{home}.{kind.__name__}") for kind in _PLAIN for home in ("builtins", "__builtin__")),
        (np.dtype, "numpy.dtype"),
        (np.ndarray, "numpy.ndarray"),
        (dict, "lightning_fabric.utilities.data.AttributeDict"),
        (dict, "lightning.fabric.utilities.data.AttributeDict"),
        (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    ]
    for home in ("pathlib", "pathlib._local"):
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
            pure = pathlib.PureWindowsPath if "Windows" in kind else pathlib.PurePosixPath
            found.append((pure, f"{home}.{kind}"))
    core: Any = getattr(np, "_core", None) or np.core
    for home in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(core.multiarray.scalar, f"{home}.scalar"), (core.multiarray._reconstruct, f"{home}._reconstruct")]
    for name in _NUMBERS:
        kind = type(np.dtype(name))
        found.append((kind, f"numpy.dtypes.{kind.__name__}"))
    found += [(_as_given, name) for name in _INERT]
    return [*found, (_queue, "collections.deque"), (str, "torch.torch_version.TorchVersion")]


def _as_given(*values: object) -> tuple[object, ...]:
    """The pickled arguments of a value, in place of the value."""
    return values


def _queue(values: Iterable[object] = (), most: int | None = None) -> list[object]:
    """A list in place of a queue; unpickling appends the queue's items to it."""
    del most
    return list(values)
