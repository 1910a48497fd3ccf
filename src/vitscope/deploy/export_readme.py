"""The README of a folder of exported files: what they are, and three lines that load each."""

from collections.abc import Mapping, Sequence

from vitscope.deploy.exporting import ExportedFile
from vitscope.models.subject import Subject

_LINES = {
    ".safetensors": """import vitscope

subject = vitscope.load("model.safetensors")
logits = subject(images)""",
    ".pt2": """import torch

model = torch.export.load("model.pt2").module()
logits = model(images)""",
    ".onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {"images": images})[0]  # images as a NumPy array""",
}
_NEEDS = {
    ".safetensors": "weights and edits; needs vitscope",
    ".pt2": "needs PyTorch",
    ".onnx": "needs ONNX Runtime; preprocessing, classes and edits are in its metadata",
    ".json": "what to change in the library's own model, for the weights of model.safetensors; needs no vitscope",
    "": "a folder of transformers; needs no vitscope",
}


def export_readme(
    subject: Subject, files: "Sequence[ExportedFile]", programs: Mapping[str, str], notes: Sequence[str]
) -> str:
    """The README in Markdown; ``programs`` make the model without this project, by the name of the file they read."""
    edits = ", ".join(type(edit).__name__ for edit in subject.edits)
    parts = [
        f"# {subject.name}",
        f"Exported by vitscope. Its weights are {subject.weights}{f', edited by {edits}' if edits else ''}.",
        _describe_input(subject),
        *(_describe_file(one, programs.get(one.path.name)) for one in files),
        *([f"Classes, in the order of the logits: {', '.join(subject.classes)}."] if subject.classes else []),
        *notes,
    ]
    return "\n\n".join(parts) + "\n"


def _describe_input(subject: Subject) -> str:
    given = subject.preprocessing
    shape = " x ".join(("batch", *map(str, given.shape)))
    said = f"`images` are {shape}, 32-bit floating point: {given.text}."
    if given.mean is None or given.std is None:
        return said
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (given.mean, given.std))
    return f"{said} By channel, pixels from 0 to 1 lose the mean ({mean}) and are divided by the deviation ({std})."


def _describe_file(file: "ExportedFile", program: str | None) -> str:
    suffix = file.path.suffix
    apart = f"differ by at most {file.difference:.1g} of the largest from" if file.difference else "equal"
    said = f"In a process of its own, its logits for {file.compared} inputs {apart} those of the model"
    same = "" if file.agreement is None else f", and {file.agreement:.1%} of the images get the same class"
    own = [f"```python\n{_LINES[suffix]}\n```"] if suffix in _LINES else []
    other = [] if program is None else [f"```python\n{program.rstrip()}\n```"]
    if own and other:
        other = ["Or without vitscope:", *other]
    size = f"{file.size / 1e6:.1f} MB" if file.size >= 1e5 else f"{file.size / 1e3:.1f} kB"
    head = f"{size}; {_NEEDS[suffix]}. {said}{same}."
    return "\n\n".join([f"## {file.path.name}", head, *own, *other])
