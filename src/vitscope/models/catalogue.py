"""The known libraries and adapters, and which of them a module belongs to."""

import importlib
import importlib.util

from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, LIBRARIES, AbstractAdapter, AbstractLibrary
from vitscope.models.feed import in_own_precision
from vitscope.models.subject import Composition
from vitscope.runs.registry import import_all

_ROOTS = {"timm": "timm", "torchvision": "torchvision", "transformers": "transformers", "vitscope": "own"}


def import_adapters(root: str) -> None:
    """Import the adapters of the library whose classes live in the package ``root``; raise if it is not installed."""
    if importlib.util.find_spec(root) is None:
        raise UserError(f"{root} is not installed; install it with: pip install 'vitscope[{root}]'.")
    import_all(f"vitscope.models.{_ROOTS[root]}")


def import_installed_adapters() -> None:
    """Import the adapters of every library that is installed."""
    for root in _ROOTS:
        if importlib.util.find_spec(root) is not None:
            import_adapters(root)


def root_of(module: nn.Module) -> str | None:
    """The package of a known library in which the module's class, or a class it inherits from, is defined."""
    for base in type(module).__mro__:
        root = base.__module__.split(".")[0]
        if root in _ROOTS:
            return root
    return None


def adapter_of(module: nn.Module) -> type[AbstractAdapter] | None:
    """The adapter of the module's family, if there is one."""
    root = root_of(module)
    if root is None:
        return None
    import_adapters(root)
    return next((adapter for _, adapter in ADAPTERS.items() if adapter.matches(module)), None)


def composition_of(module: nn.Module) -> Composition | None:
    """The module taken apart by the adapter of its family, fed in its own precision; None if there is no adapter."""
    adapter = adapter_of(module)
    return in_own_precision(module, adapter.anatomy(module)) if adapter else None


def library_of(module: nn.Module) -> type[AbstractLibrary] | None:
    """The library the module's class comes from, if it is a known one."""
    root = root_of(module)
    if root is None:
        return None
    import_adapters(root)
    return LIBRARIES[_ROOTS[root]]
