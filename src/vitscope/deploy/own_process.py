"""A written file, loaded and run in a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import first_line

_BEGIN = """
import sys
import numpy as np
path, given, found = sys.argv[1:]
batches = np.load(given, allow_pickle=False)
"""
_END = """
np.savez(found, **{name: run(batches[name]) for name in batches.files})
"""
_ALONE = """
sys.modules["vitscope"] = None  # a file that needs it fails here
"""
_WITHOUT = {
    ".onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
entry = session.get_inputs()[0]
kind = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8"}[entry.type]
def run(images):
    return session.run(None, {entry.name: images.astype(kind)})[0].astype("f4")
""",
    ".pt2": """
import torch
program = torch.export.load(path)
held = [one.dtype for one in program.state_dict.values() if one.is_floating_point()]
kind, model = (held or [torch.float32])[0], program.module()
def run(images):
    with torch.no_grad():
        return model(torch.from_numpy(images).to(kind)).float().numpy()
""",
}
"""Programs that run a file without any class of this project, by its suffix."""
_MODEL = """
import torch
def run(images):
    with torch.no_grad():
        found = model(torch.from_numpy(images))
    return getattr(found, "logits", found).float().numpy()
"""
_WITH = """
import warnings
warnings.simplefilter("ignore")
import torch
import vitscope
subject = vitscope.load(path)
def run(images):
    with torch.no_grad():
        return subject(torch.from_numpy(images)).float().numpy()
"""


def logits_apart(
    file: Path, batches: Sequence[Float[Tensor, "batch channels height width"]]
) -> tuple[Float[Tensor, "batch classes"], ...]:
    """The logits that a file gives for each of the batches, in a fresh process.

    ``.onnx`` is run by ONNX Runtime and ``.pt2`` by PyTorch, without this project; anything else is loaded by
    ``vitscope.load``. Raises ``UserError`` with the process's last words if it fails. Cost: the start of a process,
    which is 1 to 10 s.
    """
    alone = file.suffix in _WITHOUT
    program = _ALONE + _WITHOUT[file.suffix] if alone else _WITH
    return _run(program, alone, file, batches)


def logits_of_program(
    program: str, file: Path, batches: Sequence[Float[Tensor, "batch channels height width"]]
) -> tuple[Float[Tensor, "batch classes"], ...]:
    """The logits of what a program calls ``model``, in a fresh process without this project.

    The program reads ``file`` in its folder, which is the working folder.
    """
    return _run(f"{_ALONE}{program}{_MODEL}", True, file, batches)


def _run(
    program: str, alone: bool, path: Path, batches: Sequence[Float[Tensor, "batch channels height width"]]
) -> tuple[Float[Tensor, "batch classes"], ...]:
    isolated = ["-I"] if alone else []  # neither the working folder nor PYTHONPATH is searched
    with tempfile.TemporaryDirectory(prefix="vitscope-") as place:
        given, found = Path(place, "given.npz"), Path(place, "found.npz")
        inputs: dict[str, Any] = {str(number): one.float().cpu().numpy() for number, one in enumerate(batches)}
        np.savez(given, **inputs)
        command = [sys.executable, *isolated, "-W", "ignore", "-c", _BEGIN + program + _END]
        command += map(str, (path.absolute(), given, found))
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = first_line((done.stderr.strip().splitlines() or [""])[-1])
            raise UserError(f"{path.name} does not run in a process of its own ({said}).")
        with np.load(found, allow_pickle=False) as arrays:
            return tuple(torch.from_numpy(arrays[str(number)]) for number in range(len(batches)))
