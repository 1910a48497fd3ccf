"""Read files of ``torch.export`` (.pt2) without running code that they contain."""

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

from vitscope.deploy.backend import Shape
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason

_FOLDERS = ("data/weights/", "data/constants/", "data/sample_inputs/", "models/", "extra/")
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision|quantized_decomposed|_c10d_functional)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.[a-z]\w*|torch\.(sym_[a-z]\w*|_sym_[a-z]\w*)"
)
"""Functions that a node may call. PyTorch's loader looks up any name below ``torch``, including its imports."""
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_SIZE = re.compile(r"(?:[A-Z](?!\w*__)\w*|[suz][a-z]*\d+|oo|int_oo|\d+(\.\d+)?|[-+*/(),<>=&|~ ])*")
"""Characters and names of a size without its symbols. PyTorch's loader evaluates sizes as Python."""


class _Unsafe(Exception):
    """A part of a file that could run code."""


@final
@dataclass(frozen=True, eq=False)
class Exported:
    """An exported program of images: the shape of an image, and its batch size if it takes only one."""

    program: ExportedProgram
    shape: Shape
    fixed: int | None

    @property
    def module(self) -> Callable[[torch.Tensor], Any]:
        """The program as a function, run operator by operator."""
        return self.program.module()

    @property
    def like(self) -> torch.Tensor:
        """A tensor of the device and type of its first floating-point weights; float32 on the CPU without any."""
        held = (one for one in self.program.state_dict.values() if one.is_floating_point())
        return next(held, torch.empty(0))

    @property
    def weight_count(self) -> int:
        """How many numbers its parameters hold."""
        names = set(self.program.graph_signature.parameters)
        return sum(one.numel() for name, one in self.program.state_dict.items() if name in names)


def open_exported(path: str | os.PathLike[str]) -> Exported:
    """The program in a file of ``torch.export.save``.

    PyTorch's own loader runs pickled objects, names of functions and sizes that a file contains. Here only plain
    tensors, known operators and arithmetic are allowed. Raises ``UserError`` for anything else, and for a program that
    takes something else than images.
    """
    from torch.export.pt2_archive._package import load_pt2

    content = Path(path).read_bytes()
    try:
        _refuse_unsafe(content)
        program = load_pt2(io.BytesIO(content)).exported_programs["model"]
    except _Unsafe as error:
        raise UserError(f"{path} holds {error}, which could run code; export it again from the model.") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{path} is no file of torch.export that this version reads ({reason(error)}).") from error
    return _taking_images(program, path)


def _refuse_unsafe(content: bytes) -> None:
    """Raise :class:`_Unsafe` for pickles and code. The archive is opened by the reader that PyTorch's loader uses."""
    reader = PT2ArchiveReader(io.BytesIO(content))
    for name in reader.get_file_names():
        if name not in _PLAIN and not name.startswith(_FOLDERS):
            raise _Unsafe(name)
        if name.startswith(_FOLDERS[:2]) and name.endswith("_config.json"):
            for entry in json.loads(reader.read_bytes(name))["config"].values():
                if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
                    raise _Unsafe(f"an object that is no tensor ({entry['path_name']})")
        elif name.startswith(_FOLDERS[:2]) and name.endswith(".pt"):
            raise _Unsafe(f"pickled weights ({name})")
        elif name.startswith(_FOLDERS[3]):
            _refuse_calls(json.loads(reader.read_bytes(name)))
        elif name.startswith(_FOLDERS[2]):
            stored = io.BytesIO(reader.read_bytes(name))
            try:
                torch.load(stored, weights_only=True)
            except Exception as error:
                raise _Unsafe("example inputs that are no tensors") from error


def _refuse_calls(graph: object) -> None:
    """Raise :class:`_Unsafe` if a node calls anything but an operator, or a size is more than arithmetic."""
    for part in _objects(graph):
        target, size = part.get("target"), part.get("expr_str")
        if "inputs" in part and target is not None and not _OPERATORS.fullmatch(str(target)):
            raise _Unsafe(f"a call of {str(target)[:60]}")
        if size is not None and not _SIZE.fullmatch(_SYMBOL.sub("1", str(size))):
            raise _Unsafe(f"the size {str(size)[:60]}")


def _objects(value: object) -> Iterator[dict[str, object]]:
    """All objects in parsed JSON, at any depth."""
    if isinstance(value, dict):
        found = cast("dict[str, object]", value)
        yield found
        value = list(found.values())
    if isinstance(value, list):
        for one in cast("list[object]", value):
            yield from _objects(one)


def _taking_images(program: ExportedProgram, path: str | os.PathLike[str]) -> Exported:
    names = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [tuple(one.shape) for one in values if isinstance(one, torch.Tensor)]
    if (
        len(values) != 1
        or len(shapes) != 1
        or len(shapes[0]) != 4
        or not all(type(one) is int for one in shapes[0][1:])
    ):
        shown = ", ".join(str(tuple(map(str, one))) for one in shapes) or "no tensor"
        raise UserError(f"{path} takes {shown}, not batch x channels x height x width; export it again.")
    batch, channels, height, width = shapes[0]
    return Exported(program, (channels, height, width), batch if type(batch) is int else None)
