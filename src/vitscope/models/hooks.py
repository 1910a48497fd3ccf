"""Temporary hooks on submodules."""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

Before = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
"""Called with a submodule's name, its positional arguments and those by keyword, before it runs."""
After = Callable[[str, object], object]
"""Called with a submodule's name and its output; what it returns replaces the output, unless that is None."""


def takes_hooks(part: nn.Module) -> bool:
    """Whether a module takes hooks; TorchScript programs do not."""
    return type(part).register_forward_pre_hook is nn.Module.register_forward_pre_hook


@contextmanager
def hooks(
    module: nn.Module, names: Iterable[str], before: Before | None = None, after: After | None = None
) -> Generator[None]:
    """Call ``before`` and ``after`` when these submodules run (``""`` is the module), until the block ends."""
    with ExitStack() as stack:
        for name in names:
            part = module.get_submodule(name)
            if before is not None:
                stack.enter_context(part.register_forward_pre_hook(_pre_hook(name, before), with_kwargs=True))
            if after is not None:
                stack.enter_context(part.register_forward_hook(_hook(name, after)))
        yield


@contextmanager
def record_runs(module: nn.Module, names: Iterable[str]) -> Generator[list[str]]:
    """The names of these submodules in the order in which they run, until the block ends; each run is listed."""
    runs: list[str] = []

    def note(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        del given, named
        runs.append(name)

    with hooks(module, names, before=note):
        yield runs


def _pre_hook(name: str, before: Before) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    return lambda _, given, named: before(name, given, named)


def _hook(name: str, after: After) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    return lambda _, given, output: after(name, output)
