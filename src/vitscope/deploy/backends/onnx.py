"""ONNX Runtime, on a file exported from the module."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import nn
from typing_extensions import override

from vitscope.deploy.backend import BACKENDS, AbstractBackend, AbstractRunner, Shape
from vitscope.deploy.onnx_file import open_onnx, refuse_without, write_onnx
from vitscope.measurement.errors import UserError


@BACKENDS.add("onnx")
@final
@dataclass(frozen=True)
class Onnx(AbstractBackend):
    """ONNX Runtime on the CPU, with PyTorch's number of threads within an operator, one operator at a time.

    The module is exported with a variable batch size. Cost: some 10 s for the export. Needs onnxruntime and onnxscript.
    """

    name = "onnx"

    @override
    def check(self, device: torch.device) -> None:
        refuse_without("onnxruntime", "onnxscript", why="The backend onnx")
        if device.type != "cpu":
            raise UserError(f"The backend onnx runs on the CPU here, and the model is on {device}; leave it out.")

    @override
    def prepare(self, module: nn.Module, shape: Shape, batches: Sequence[int], threads: int) -> AbstractRunner:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            write_onnx(module, shape, file)
            return open_onnx(file, threads)
