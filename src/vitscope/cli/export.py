"""``vitscope export``: a model, its edits included, as files that run elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from vitscope.cli.error_reporting import INTERRUPTED, fail
from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.model import ModelRequest
from vitscope.cli.paths import refuse_absent
from vitscope.cli.terminal import columns, hint, stdout, waiting
from vitscope.measurement.bounds import COUNT, check_number
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    from vitscope.data import Images
    from vitscope.deploy.export import ExportResult
    from vitscope.deploy.exporting import ExportedFile


@dataclass(frozen=True)
class ExportRequest:
    """How the files are made; each field is a flag."""

    quantise: Literal["none", "dynamic", "static"] = "none"
    """Weights of the .onnx file in 8 bits: dynamic takes the range of activations from each batch, static once from
    --images."""
    images: str | None = None
    """Images to compare the file on, besides noise, and to take the ranges of a static quantisation from."""
    split: str | None = None
    """Which of several splits of --images."""
    limit: int = 500
    """Take this many of --images, each class in proportion to its size."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        refuse_absent(self.images, "--images")
        check_number("--limit", self.limit, COUNT)
        if self.quantise == "static" and self.images is None:
            raise UserError("--quantise static takes the ranges of activations from images; give --images.")


def export_model(
    model: Annotated[str, typer.Argument(help="The model, as for vitscope checkup.", metavar="MODEL")],
    target: Annotated[
        str,
        typer.Argument(
            help="FILE.onnx, FILE.pt2 or FILE.safetensors; or a folder for all of them and a README.", metavar="TARGET"
        ),
    ],
    **fields: object,
) -> None:
    """Write a model, its edits included, to files that run elsewhere, each loaded again and compared with it.

    .onnx (ONNX Runtime) and .pt2 (PyTorch) need neither vitscope nor the model's library and take batches of any size;
    .safetensors is what vitscope loads. A file whose logits differ by more than 1e-4 of the largest is not written.
    """
    request = make_settings(ExportRequest, fields)
    loaded = make_settings(ModelRequest, {**fields, "model": model})
    try:
        with waiting("Loading the model"):
            subject = loaded.subject()
            from vitscope.deploy.export import export

            pictures = _pictures(request)
        with waiting(f"Exporting to {target}, and running it in a process of its own"):
            quantise = None if request.quantise == "none" else request.quantise
            result = export(subject, target, pictures, quantise, request.limit)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", INTERRUPTED, "")
    _print_result(result)
    names = [str(one.path) for one in result.files if one.path.suffix != ".safetensors"]
    if names:
        hint(f"next: vitscope bench {model} {' '.join(names)}")


def _pictures(request: ExportRequest) -> "Images | None":
    from vitscope.data import images

    return None if request.images is None else images(request.images, split=request.split, limit=request.limit)


def _print_result(result: "ExportResult") -> None:
    console = stdout()
    table = columns("file", "MB", "logits differ by", "inputs", "same class", right=("MB", "inputs"), fold=("file",))
    for row in _rows(result.files):
        table.add_row(*row)
    console.print(table, highlight=False)
    for note in result.notes:
        console.print(Text(printable(note), style="dim"))


def _rows(files: "Iterable[ExportedFile]") -> Iterable[tuple[str, ...]]:
    for one in files:
        apart = f"{one.difference:.1e} of the largest" if one.difference else "nothing"
        same = "" if one.agreement is None else f"{one.agreement:.1%}"
        yield printable(str(one.path)), f"{one.size / 1e6:.3g}", apart, f"{one.compared}", same


export = with_flags(export_model, ExportRequest, ModelRequest, without=("model",))
