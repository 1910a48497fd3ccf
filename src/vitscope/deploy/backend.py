"""Backends, which run models. Each is one registered class that makes a module ready to run."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.models.feed import input_like
from vitscope.models.output import rows_of
from vitscope.runs.registry import Registry

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class AbstractRunner(ABC):
    """A model that is ready to run. Only ``run`` is timed."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device it runs on."""

    @abstractmethod
    def place(self, images: Float[Tensor, "batch channels height width"]) -> Any:  # noqa: ANN401 - its own input
        """Normalised images as input of ``run``: of the right kind, on the right device."""

    @abstractmethod
    def run(self, placed: Any) -> Any:  # noqa: ANN401 - its own input and output
        """One pass over placed images. It may return before the device has finished."""

    @abstractmethod
    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:  # noqa: ANN401 - its own output
        """The output of ``run`` as logits on the CPU."""

    def release(self) -> None:
        """Free memory that is held between passes only for speed, if there is any."""
        return


@final
@dataclass(frozen=True, eq=False)
class TorchRunner(AbstractRunner):
    """A function of tensors, without gradients."""

    function: Callable[[Tensor], Any]
    like: Tensor
    """A tensor on the device and of the type of the function's input."""

    @property
    @override
    def device(self) -> torch.device:
        return self.like.device

    @override
    def place(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        return images.to(self.like.device, self.like.dtype, copy=True)

    @override
    def run(self, placed: Tensor) -> Any:
        with torch.no_grad():
            return self.function(placed)

    @override
    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        rows = rows_of(output)
        assert rows is not None, "a subject's walk gives one row an image"
        return rows.float().cpu()


def torch_runner(function: Callable[[Tensor], Any], module: nn.Module) -> TorchRunner:
    """A runner of ``function`` on the device and in the precision of ``module``."""
    return TorchRunner(function, input_like(module).detach())


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work. A CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def quiet(*names: str) -> Generator[None]:
    """Suppress warnings, and messages below errors of these loggers, for the block."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, before, strict=True):
                one.setLevel(level)


@dataclass(frozen=True)
class AbstractBackend(ABC):
    """Runs modules. A new one is one file in ``deploy/backends`` with one registered final class."""

    name: ClassVar[str]
    eager: ClassVar[bool] = False
    """Whether it runs the module's operators one by one, as PyTorch does by default."""

    @abstractmethod
    def check(self, device: torch.device) -> None:
        """Raise ``UserError`` if a library is missing or it cannot run on this device."""

    @abstractmethod
    def prepare(self, module: nn.Module, shape: Shape, batches: Sequence[int], threads: int) -> AbstractRunner:
        """Make the module ready to run on batches of these sizes; ``shape`` is that of an image.

        It computes with ``threads`` threads, which PyTorch uses already. Raises whatever goes wrong.
        """


BACKENDS: Registry[AbstractBackend] = Registry("backend", "vitscope.deploy.backends", AbstractBackend)
