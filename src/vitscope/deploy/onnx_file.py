"""ONNX files: a module written as one, and one that ONNX Runtime runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import ExportedProgram
from typing_extensions import override

from vitscope.deploy.backend import AbstractRunner, Shape, quiet
from vitscope.deploy.program import INPUT, OUTPUT, trace_program
from vitscope.measurement.errors import UserError

OPSET = 18
"""The version of ONNX's operators in exported files."""
LARGEST = 2**31
"""Bytes of weights from which on they do not fit into an ONNX file."""
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


def refuse_without(*packages: str, why: str) -> None:
    """Raise ``UserError`` with the command that installs them if one of the packages is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{why} needs {' and '.join(missing)}; install it with: pip install 'vitscope[onnx]'.")


def write_onnx(module: nn.Module, shape: Shape, path: str | os.PathLike[str]) -> None:
    """Write the module as an ONNX file whose batch may be of any size; see :func:`save_onnx`."""
    save_onnx(trace_program(module, shape), path)


def save_onnx(
    traced: ExportedProgram, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Write a program of :func:`~vitscope.deploy.program.trace_program` as an ONNX file; returns the files written.

    ``images`` (normalised, batch x channels x height x width) go in, ``logits`` come out. The operators are those of
    opset 18, which ONNX Runtime reads since 1.14; ``metadata`` are texts by name. Weights of 2 GB and more are written
    beside it, in FILE.data. Raises what the exporter raises. Cost: some 10 s for a ViT of twelve blocks.
    """
    with quiet("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
        program = torch.onnx.export(
            traced,
            dynamo=True,
            dynamic_shapes={INPUT: {0: "batch"}},
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None, "the exporter of torch.export gives a program"
    program.model.metadata_props.update(metadata or {})
    beside = _bytes(traced) >= LARGEST
    program.save(os.fspath(path), external_data=beside)
    return (Path(path), Path(f"{os.fspath(path)}.data")) if beside else (Path(path),)


@final
@dataclass(frozen=True, eq=False)
class OnnxRunner(AbstractRunner):
    """A session of ONNX Runtime on the CPU. It takes NumPy arrays."""

    session: Any
    shrink: Any
    """Options of a run after which the session frees the memory it holds."""
    feed: str
    kind: torch.dtype
    fixed: int | None
    """The only batch size that the file takes; None if it takes any."""
    shape: Shape

    @property
    @override
    def device(self) -> torch.device:
        return torch.device("cpu")

    @override
    def place(self, images: Float[Tensor, "batch channels height width"]) -> np.ndarray:
        return images.to("cpu", self.kind, copy=True).numpy()

    @override
    def run(self, placed: np.ndarray) -> Any:
        return self.session.run(None, {self.feed: placed})

    @override
    def release(self) -> None:
        image = np.zeros((self.fixed or 1, *self.shape), torch.empty(0, dtype=self.kind).numpy().dtype)
        self.session.run(None, {self.feed: image}, self.shrink)

    @override
    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        return torch.from_numpy(output[0]).float()


def open_onnx(path: str | os.PathLike[str], threads: int) -> OnnxRunner:
    """Open the file in a session with this many threads. ``UserError`` if it takes anything but images."""
    refuse_without("onnxruntime", why=f"{Path(path).name}")
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has errors of its own for what is wrong with a file
        raise UserError(f"{path} cannot be read by ONNX Runtime ({_first(error)}); export it again.") from error
    wanted = session.get_inputs()
    sides = list(wanted[0].shape) if len(wanted) == 1 else []
    if len(sides) != 4 or not all(isinstance(one, int) for one in sides[1:]) or wanted[0].type not in _TYPES:
        shown = ", ".join(f"{one.name} {one.shape}" for one in wanted)
        raise UserError(f"{path} takes {shown}, not batch x channels x height x width of numbers; export it again.")
    fixed = sides[0] if isinstance(sides[0], int) else None
    shrink = onnxruntime.RunOptions()
    shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    shape = (sides[1], sides[2], sides[3])
    return OnnxRunner(session, shrink, wanted[0].name, _TYPES[wanted[0].type], fixed, shape)


def count_weights(path: str | os.PathLike[str]) -> int | None:
    """The number of weights in the file, without constants of its graph; None without the package onnx."""
    if find_spec("onnx") is None:
        return None
    import onnx

    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    return sum(int(np.prod(one.dims, dtype=np.int64)) for one in graph.initializer)


def _bytes(traced: ExportedProgram) -> int:
    held = (one for one in (*traced.state_dict.values(), *traced.constants.values()) if isinstance(one, Tensor))
    return sum(one.numel() * one.element_size() for one in held)


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200].rstrip(".")
