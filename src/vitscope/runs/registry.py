"""Registries: the classes of a kind by name, from which the command line, the docs and the law tests follow."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from vitscope.measurement.errors import UserError

T = TypeVar("T")
Member = TypeVar("Member")


class Registry(Generic[T]):
    """Named classes of one kind. A class joins by the decorator :meth:`add`, at its file's import."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._classes: dict[str, type[T]] = {}

    def add(self, name: str) -> Callable[[type[Member]], type[Member]]:
        """Decorator that registers a class under a name that is not taken."""

        def register(cls: type[Member]) -> type[Member]:
            if name in self._classes:
                raise ValueError(f"The {self._kind} name {name!r} is taken by {self._classes[name].__name__}.")
            if not cls.__doc__:
                raise ValueError(f"The {self._kind} {name!r} has no docstring, which is its help and its definition.")
            self._classes[name] = cast("type[T]", cls)  # what it is stays known where it is used
            return cls

        return register

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise UserError(f"There is no {self._kind} named {name!r}; there are: {', '.join(self)}.")
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def items(self) -> Iterator[tuple[str, type[T]]]:
        """Names and classes in the order of the names, whatever was imported first."""
        return iter(sorted(self._classes.items()))


def import_all(package: str) -> None:
    """Import every module of a package, so that what its files register is there."""
    found = importlib.import_module(package)
    for module in sorted(pkgutil.iter_modules(found.__path__), key=lambda module: module.name):
        importlib.import_module(f"{package}.{module.name}")
