"""Contestants of a bench: a subject on a backend, or an exported file."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from vitscope.deploy.backend import BACKENDS, AbstractBackend, AbstractRunner, Shape, TorchRunner
from vitscope.deploy.exported import Exported, open_exported
from vitscope.deploy.onnx_file import OnnxRunner, count_weights, open_onnx
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import tell_apart
from vitscope.models.compact import compact
from vitscope.models.feed import input_like
from vitscope.models.load import load
from vitscope.models.subject import Subject
from vitscope.runs.code import code_version
from vitscope.runs.registry import resolve_names

AsModel = Subject | nn.Module | str | os.PathLike[str]
"""A model: a subject, a module, what :func:`vitscope.load` takes, or an exported ``.onnx`` or ``.pt2`` file."""
AsBackend = str | AbstractBackend
"""A backend, or its name."""


@dataclass(frozen=True, eq=False)
class AbstractContestant(ABC):
    """A model and what runs it."""

    model: str
    """The model's label. Contestants that share it differ in their backend."""

    @property
    @abstractmethod
    def backend(self) -> str:
        """The name of its backend."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Channels, height and width of its images."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    @abstractmethod
    def parameters(self) -> int | None:
        """How many weights it uses; None if unknown."""

    @property
    def function(self) -> tuple[Callable[[Tensor], Any], Tensor] | None:
        """A PyTorch function that computes the same, and a tensor of the device and type it takes; None without one.

        Operations are counted on it.
        """
        return None

    @property
    def eager(self) -> bool:
        """Whether it runs the operators of ``function`` one by one."""
        return False

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that it takes; None if it takes any."""
        return None

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """Its description for the spec, including a fingerprint of its content."""

    def settings(self) -> dict[str, object]:
        """The settings of its backend, for the spec; none for most."""
        return {}

    @abstractmethod
    def prepare(self, batches: Sequence[int], threads: int) -> AbstractRunner:
        """Make it ready to run on batches of these sizes. Raises whatever goes wrong."""


@final
@dataclass(frozen=True, eq=False)
class SubjectContestant(AbstractContestant):
    """A subject, edits included, on a backend. ``module`` is the compacted subject, and ``takes`` an image's shape."""

    subject: Subject | None
    """None in a worker process, which needs only the module."""
    module: nn.Module
    takes: Shape
    runs_on: AbstractBackend

    @property
    @override
    def backend(self) -> str:
        return self.runs_on.name

    @property
    @override
    def shape(self) -> Shape:
        return self.takes

    @property
    @override
    def device(self) -> torch.device:
        return input_like(self.module).device

    @property
    @override
    def parameters(self) -> int:
        return sum(one.numel() for one in self.module.parameters())

    @property
    @override
    def function(self) -> tuple[Callable[[Tensor], Any], Tensor]:
        return self.module, input_like(self.module).detach()

    @property
    @override
    def eager(self) -> bool:
        return self.runs_on.eager

    @override
    def facts(self) -> dict[str, object]:
        subject = self.subject
        assert subject is not None, "worker processes do not describe contestants"
        found: dict[str, object] = {
            "family": subject.family,
            "parameters": self.parameters,
            "input": subject.preprocessing.text,
            "fingerprint": subject.fingerprint,
            "precision": str(input_like(self.module).dtype).removeprefix("torch."),
        }
        if subject.edits:
            found["edits"] = [repr(edit) for edit in subject.edits]
        return found

    @override
    def settings(self) -> dict[str, object]:
        return {**asdict(self.runs_on), **code_version(self.runs_on)}

    @override
    def prepare(self, batches: Sequence[int], threads: int) -> AbstractRunner:
        return self.runs_on.prepare(self.module, self.shape, batches, threads)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "subject": None}


@dataclass(frozen=True, eq=False)
class AbstractFile(AbstractContestant):
    """An exported file."""

    path: Path

    @override
    def facts(self) -> dict[str, object]:
        channels, height, width = self.shape
        found: dict[str, object] = {"family": f"{self.path.suffix} file", "input": f"{channels} x {height} x {width}"}
        found["fingerprint"] = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return found | ({} if self.parameters is None else {"parameters": self.parameters})


@final
@dataclass(frozen=True, eq=False)
class OnnxContestant(AbstractFile):
    """An ONNX file, run by ONNX Runtime on the CPU."""

    @property
    @override
    def backend(self) -> str:
        return "onnx"

    @cached_property
    def _opened(self) -> OnnxRunner:
        return open_onnx(self.path, 1)

    @property
    @override
    def shape(self) -> Shape:
        return self._opened.shape

    @property
    @override
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    @override
    def fixed_batch(self) -> int | None:
        return self._opened.fixed

    @cached_property
    def _weights(self) -> int | None:
        return count_weights(self.path)

    @property
    @override
    def parameters(self) -> int | None:
        return self._weights

    @override
    def prepare(self, batches: Sequence[int], threads: int) -> AbstractRunner:
        return open_onnx(self.path, threads)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "path": self.path}  # a session cannot be sent to a process


@final
@dataclass(frozen=True, eq=False)
class ExportedContestant(AbstractFile):
    """A file of ``torch.export``, run by PyTorch operator by operator."""

    @property
    @override
    def backend(self) -> str:
        return "pt2"

    @cached_property
    def _opened(self) -> Exported:
        return open_exported(self.path)

    @property
    @override
    def shape(self) -> Shape:
        return self._opened.shape

    @property
    @override
    def device(self) -> torch.device:
        return self._opened.like.device

    @property
    @override
    def parameters(self) -> int:
        return self._opened.weight_count

    @property
    @override
    def fixed_batch(self) -> int | None:
        return self._opened.fixed

    @cached_property
    def _module(self) -> Callable[[Tensor], Any]:
        return self._opened.module

    @property
    @override
    def function(self) -> tuple[Callable[[Tensor], Any], Tensor]:
        return self._module, self._opened.like

    @property
    @override
    def eager(self) -> bool:
        return True

    @override
    def prepare(self, batches: Sequence[int], threads: int) -> AbstractRunner:
        return TorchRunner(*self.function)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "path": self.path}  # it is opened again


_FILES: dict[str, type[AbstractFile]] = {".onnx": OnnxContestant, ".pt2": ExportedContestant}


def contestants_of(
    models: AsModel | Sequence[AsModel],
    backends: AsBackend | Sequence[AsBackend],
    device: str | None,
    labels: Sequence[str] | None = None,
) -> tuple[AbstractContestant, ...]:
    """Every model on every backend, model by model; exported files on what runs them.

    ``labels`` name the models; the default is their own names. Models given by name and modules are loaded onto
    ``device`` (default: the CPU), and subjects must be on it. Raises ``UserError`` for a backend that cannot be used
    here, and if contestants are on several devices.
    """
    given = [models] if isinstance(models, Subject | nn.Module | str | os.PathLike) else list(models)
    if not given:
        raise UserError("There is no model to time; give one or several.")
    chosen = resolve_names(backends, BACKENDS)
    if not chosen:
        raise UserError(f"There is nothing to run the models; give one or several of {', '.join(BACKENDS)}.")
    entered = [_enter(one, device) for one in given]
    if labels is not None and (isinstance(labels, str) or len(set(labels)) != len(given)):
        raise UserError(f"{len(given)} models were given the labels {labels!r}; give each model its own label.")
    names = labels or tell_apart(*zip(*((short, long) for short, long, _ in entered), strict=True))
    found: list[AbstractContestant] = []
    for name, (_, _, model) in zip(names, entered, strict=True):
        if isinstance(model, Subject):
            module = compact(model)
            shape = model.preprocessing.shape
            found += [SubjectContestant(name, model, module, shape, one) for one in chosen]
        else:
            found.append(model(name))
    for one in found:
        if isinstance(one, SubjectContestant):
            one.runs_on.check(one.device)
    places = {str(one.device) for one in found}
    if len(places) > 1:
        raise UserError(f"The models are on {' and '.join(sorted(places))}; time those of one device at a time.")
    return tuple(found)


def _load(model: nn.Module | str | os.PathLike[str], device: str) -> Subject:
    """The subject; random weights are the same ones every time, so that an interrupted bench can be continued."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(model, device=device)


def _enter(model: AsModel, device: str | None) -> tuple[str, str, Subject | Callable[[str], AbstractContestant]]:
    """A model's short name, its longer name, and the subject or a function that makes the file a contestant."""
    path = Path(model) if isinstance(model, str | os.PathLike) else None
    if path is not None and path.suffix in _FILES:
        if not path.is_file():
            raise UserError(f"There is no file {path}; give an exported .onnx or .pt2 file, or a model.")
        return path.name, str(path), partial(_FILES[path.suffix], path=path)
    subject = model if isinstance(model, Subject) else _load(model, device or "cpu")
    place = input_like(subject.module).device
    if device is not None and torch.device(device) != place and torch.device(device).type != place.type:
        raise UserError(f"{subject.name} is on {place} and not on {device}; load it there.")
    return subject.name, ", ".join((subject.name, *map(repr, subject.edits))), subject
