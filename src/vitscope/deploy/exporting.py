"""An export under way: files that are made, loaded again in processes of their own, compared, and published."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import ExportedProgram

from vitscope.deploy.facts import describe_subject
from vitscope.deploy.onnx_file import save_onnx
from vitscope.deploy.own_process import logits_apart
from vitscope.deploy.program import trace_program
from vitscope.deploy.quantise import Quantisation, quantise_onnx
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.compact import compact
from vitscope.models.feed import input_like
from vitscope.models.own_forward import allowed_gap, distance
from vitscope.models.probe import probe
from vitscope.models.saved import load_again, save
from vitscope.models.subject import Subject
from vitscope.runs.whole import atomic_file

COMPARED = 128
"""Images on which the logits are compared, at most."""
BATCH = 32
"""Images of a pass."""

Batches = tuple[Float[Tensor, "batch channels height width"], ...]


@final
@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, loaded again, and compared with the subject.

    ``difference`` is the largest difference of its logits from the subject's, as a share of the largest logit, over
    ``compared`` inputs: noise, and images if there were any. ``agreement`` is the share of the images for which it
    predicts the subject's class; None without images. ``size`` is in bytes; ``path`` may be a folder.
    """

    path: Path
    size: int
    difference: float
    compared: int
    agreement: float | None = None


@final
@dataclass(frozen=True)
class Comparison:
    """Inputs, and the subject's logits for them; the first ``noise`` batches are noise."""

    batches: Batches
    wanted: tuple[Float[Tensor, "batch classes"], ...]
    noise: int
    allowed: float

    @classmethod
    def of(cls, subject: Subject, seen: Batches) -> "Comparison":
        """The subject's logits for three pictures of noise, for one, and for some of the images it has ``seen``."""
        noise = (probe(subject, torch.float32, 3), probe(subject, torch.float32, 1))
        batches = (*noise, *torch.cat(seen)[:COMPARED].split(BATCH)) if seen else noise
        device = input_like(subject.module).device
        with torch.no_grad():
            wanted = tuple(subject(one.to(device)).float().cpu() for one in batches)
        return cls(tuple(one.cpu() for one in batches), wanted, len(noise), allowed_gap(subject.module))

    def judge(self, path: Path, found: Sequence[Tensor], limited: bool) -> ExportedFile:
        """The file with its difference; raises ``UserError`` if that is too large.

        A quantised file, whose difference is not ``limited``, is compared on the images alone if there are any: noise
        lies outside the ranges that they gave.
        """
        pairs = list(zip(found, self.wanted, strict=True))
        seen = pairs[self.noise :]
        compared = pairs if limited or not seen else seen
        apart = max(distance(one, wanted) for one, wanted in compared)
        if not apart <= (self.allowed if limited else sys.float_info.max):
            raise UserError(
                f"{path.name} was not written: when it is loaded again, its logits differ by {apart:.2g} of the "
                "largest from those of the model that it was made from."
            )
        same = torch.cat([one.argmax(1) == wanted.argmax(1) for one, wanted in seen]) if seen else None
        share = None if same is None else float(same.float().mean())
        return ExportedFile(path, size_of(path), apart, sum(len(one) for one, _ in compared), share)


@final
@dataclass(eq=False)
class ExportJob:
    """An export under way: the subject, what its files are compared with, and the program they are made from.

    ``seen`` are images that calibrate a quantisation; ``notes`` are sentences for the user.
    """

    subject: Subject
    original: Subject | None
    comparison: Comparison
    quantise: Quantisation | None
    seen: Batches
    notes: list[str] = field(default_factory=list[str])
    _traced: ExportedProgram | None = None

    def make(self, path: Path) -> ExportedFile:
        """Write the file, load it again and compare it."""
        if path.suffix == ".safetensors":
            saved = save(self.subject, path, self.original)
            if saved.model is None:
                return self._judge_here(path)
        elif path.suffix == ".pt2":
            facts = json.dumps(describe_subject(self.subject))
            torch.export.save(self.traced(), path, extra_files={"vitscope.json": facts})
        else:
            self._make_onnx(path)
        limited = self.quantise is None or path.suffix != ".onnx"
        return self.comparison.judge(path, logits_apart(path, self.comparison.batches), limited)

    def _judge_here(self, path: Path) -> ExportedFile:
        """The comparison of a file that names no model, on a copy of the module."""
        self.notes.append(
            f"{path.name} names no model, so it was not loaded in a process of its own: load it as "
            f"vitscope.load(module, weights={path.name!r})."
        )
        again = load_again(path, self.original or self.subject)
        device = input_like(again.module).device
        with torch.no_grad():
            found = [again(one.to(device)).float().cpu() for one in self.comparison.batches]
        return self.comparison.judge(path, found, limited=True)

    def _make_onnx(self, path: Path) -> None:
        plain = path if self.quantise is None else path.with_name(f"plain-{path.name}")
        try:
            save_onnx(self.traced(), plain, describe_subject(self.subject))
        except UserError:
            raise
        except Exception as error:  # the exporter raises anything
            raise UserError(f"{self._cannot('ONNX')} ({reason(error)}).") from error
        if self.quantise is not None:
            quantise_onnx(plain, path, self.quantise, self.seen)
            plain.unlink()

    def traced(self) -> ExportedProgram:
        """The subject's program, made once."""
        if self._traced is None:
            module = compact(self.subject, torch.device("cpu"))
            try:
                self._traced = trace_program(module, self.subject.preprocessing.shape)
            except Exception as error:  # torch.export raises anything
                raise UserError(
                    f"{self._cannot('torch.export')} ({reason(error)}); save it as .safetensors."
                ) from error
        return self._traced

    def _cannot(self, what: str) -> str:
        edits = ", ".join(dict.fromkeys(type(edit).__name__ for edit in self.subject.edits))
        return f"{self.subject.name}{f', edited by {edits},' if edits else ''} cannot be expressed by {what}"


def publish(made: ExportedFile, path: Path) -> ExportedFile:
    """Put the file, or the files of a folder, and what lies beside it, in its place."""
    beside = made.path.with_name(f"{made.path.name}.data")
    inside = sorted(one for one in made.path.rglob("*") if one.is_file()) if made.path.is_dir() else []
    for one in inside:
        _copy(one, path / one.relative_to(made.path))
    if beside.exists():
        _copy(beside, path.with_name(beside.name))
    if not inside:
        _copy(made.path, path)
    return replace(made, path=path)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as content, atomic_file(target) as file:
        shutil.copyfileobj(content, file)


def size_of(path: Path) -> int:
    """Bytes of a file with what lies beside it, or of all files of a folder."""
    beside = path.with_name(f"{path.name}.data")
    files = path.rglob("*") if path.is_dir() else (path, beside)
    return sum(os.path.getsize(one) for one in files if one.is_file())
