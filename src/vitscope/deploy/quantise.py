"""ONNX files with weights of 8 bits, by ONNX Runtime's quantiser."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vitscope.deploy.backend import quiet
from vitscope.deploy.onnx_file import refuse_without
from vitscope.deploy.program import INPUT
from vitscope.measurement.errors import UserError

Quantisation = Literal["dynamic", "static"]
"""When activations are quantised: anew for each batch, or by ranges that calibration images give once."""


def refuse_quantiser() -> None:
    """Raise ``UserError`` if ONNX Runtime's quantiser is not installed."""
    refuse_without("onnx", "onnxruntime", why="A quantised file")


def quantise_onnx(
    file: Path,
    target: Path,
    kind: Quantisation,
    calibration: Sequence[Float[Tensor, "batch channels height width"]] = (),
) -> None:
    """Write ``file`` to ``target`` with the weights of its matrix products in 8 bits, one scale for each output.

    ``dynamic`` quantises the activations of each batch by their own range; convolutions and everything else stay as
    they are. ``static`` needs ``calibration`` batches, whose largest and smallest activations become the ranges for
    good; convolutions are quantised too. Sizes fall to about a quarter; whether it is faster depends on the processor:
    measure it with ``vitscope bench``. Raises ``UserError`` for ``static`` without images.
    """
    refuse_quantiser()
    from onnxruntime.quantization import (  # pyright: ignore[reportMissingImports]
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
        shape_inference,
    )

    with tempfile.TemporaryDirectory(prefix="vitscope-") as folder, quiet("root", "onnxruntime"):
        ready = Path(folder, "ready.onnx")
        shape_inference.quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
        if kind == "dynamic":
            quantize_dynamic(
                ready, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
            )
            return
        if not calibration:
            raise UserError("Static quantisation needs images to take the ranges of activations from; give --images.")
        quantize_static(
            ready,
            target,
            cast("Any", _BatchReader(calibration)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


class _BatchReader:
    """The batches, one after the other, as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Sequence[Float[Tensor, "batch channels height width"]]) -> None:
        self._batches = batches
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first."""
        self._rest: Iterator[Any] = iter(self._batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the name of the file's input; None after the last."""
        batch = next(self._rest, None)
        return None if batch is None else {INPUT: batch.float().cpu().numpy()}
