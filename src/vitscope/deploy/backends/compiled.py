"""``torch.compile``, with separate kernels for each batch size."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from typing_extensions import override

from vitscope.deploy.backend import BACKENDS, AbstractBackend, AbstractRunner, Shape, quiet, torch_runner


@BACKENDS.add("compile")
@final
@dataclass(frozen=True)
class Compiled(AbstractBackend):
    """``torch.compile`` with ``dynamic=False``: separate kernels for each batch size.

    Cost: some 10 s to a minute for each batch size, before anything is timed. Needs a C++ compiler on the CPU.
    """

    name = "compile"

    @override
    def check(self, device: torch.device) -> None:
        """A missing compiler shows up when the module is prepared."""

    @override
    def prepare(self, module: nn.Module, shape: Shape, batches: Sequence[int], threads: int) -> AbstractRunner:
        """Compile the module and run it once for each batch size.

        PyTorch silently returns to eager mode if a function is compiled too often. Here that is an error, and if this
        version of PyTorch can, each module is counted separately.
        """
        from torch._inductor.async_compile import shutdown_compile_workers  # which imports all of the compiler

        runner = torch_runner(torch.compile(module, dynamic=False, **_alone()), module)
        strictly = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        with strictly, quiet("torch.utils.cpp_extension"):
            for batch in batches:
                runner.run(runner.place(torch.zeros(batch, *shape)))
        shutdown_compile_workers()  # idle processes would take memory, and time when they wake
        return runner


def _alone() -> dict[str, Any]:
    known = inspect.signature(torch.compile).parameters
    return {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
