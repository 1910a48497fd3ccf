"""Digests of the code of classes from outside the project, so that runs of two versions are never confused."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np

from vitscope.runs.registry import is_own

_PLAIN = (str, bytes, int, float, complex, type(None), type(Ellipsis))
_INSIDE = ("__wrapped__", "__func__", "func", "fget", "fset", "fdel")
"""Attributes in which a decorated function, a property or a partial stores what it calls."""


def code_version(value: object) -> Mapping[str, str]:
    """What a run's spec says about a value besides its fields: the digest of its class's code.

    Empty for the project's own classes. The digest covers the functions and constants of the class and of its foreign
    bases, and all that these name in the same package: functions, classes, constants, whatever a decorator wraps.
    """
    foreign = [cls for cls in type(value).__mro__ if not is_own(cls) and cls is not object and _has_code(cls)]
    if not foreign:
        return {}
    reader = _CodeReader(_package(type(value).__module__))
    said = "\n".join(line for cls in foreign for line in reader.members(cls))
    return {"code": hashlib.sha256(said.encode()).hexdigest()[:16]}


def _has_code(cls: type) -> bool:
    """Whether the class is not one of Python's own, such as ``ABC``."""
    return cls.__module__ not in ("abc", "typing", "builtins")


@dataclass(frozen=True)
class _CodeReader:
    """Describes the code of a package's values, each once, as text that is the same in every process."""

    package: str
    seen: set[int] = field(default_factory=set[int])

    def members(self, cls: type) -> Iterator[str]:
        """The functions and constants of a class."""
        self.seen.add(id(cls))
        for name, member in sorted(vars(cls).items()):
            if not name.startswith("__") or isinstance(member, FunctionType) or _inside(member):
                yield f"{name}: {self.describe(member, cls.__module__)}"

    def describe(self, value: Any, module: str) -> str:  # noqa: ANN401 - whatever code may name
        """A value that code of this module names, as text."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in self.seen:
            return "above"
        if isinstance(value, CodeType):
            return self._code(value, module)
        if isinstance(value, tuple | frozenset):  # one process shares these between code objects, another does not
            return self._collection(cast(Any, value), module)
        self.seen.add(id(value))
        if isinstance(value, list | Set | Mapping):
            return self._collection(cast(Any, value), module)
        if isinstance(value, FunctionType):
            return self._function(value, module)
        if isinstance(value, type):
            near = self._is_near(value.__module__, module)
            return f"{value.__qualname__} {list(self._line(value))}" if near else _name(value)
        return self._object(value, module)

    def _line(self, cls: type) -> Iterator[str]:
        """The members of a class and of those of its bases that belong to the package."""
        for one in cls.__mro__:
            if one is cls or (id(one) not in self.seen and self._is_near(one.__module__, cls.__module__)):
                yield from self.members(one)

    def _function(self, function: FunctionType, module: str) -> str:
        """Code, named values, defaults and closure; without code and names for a library's, such as a decorator."""
        home = str(function.__globals__.get("__name__"))
        held = [*map(_content, function.__closure__ or ()), function.__defaults__, function.__kwdefaults__]
        if not self._is_near(home, module):
            return f"{_name(function)} {[self.describe(one, module) for one in (*held, *_inside(function))]}"
        named = _names_in(function.__code__)
        spaces = [function.__globals__]
        for space in (function.__globals__.get(name) for name in named):
            if isinstance(space, ModuleType) and self._is_near(space.__name__, home):
                spaces.append(vars(space))
        found = [(name, space[name]) for name in named for space in spaces if name in space]
        known = [f"{name}: {self.describe(one, home)}" for name, one in found]
        return f"{self._code(function.__code__, home)} {[self.describe(one, home) for one in held]} {known}"

    def _code(self, code: CodeType, module: str) -> str:
        constants = [self.describe(one, module) for one in code.co_consts]
        return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"

    def _collection(self, values: Any, module: str) -> str:  # noqa: ANN401 - any collection
        if isinstance(values, Set):
            return repr(sorted(self.describe(one, module) for one in cast("Set[Any]", values)))
        if isinstance(values, Mapping):
            pairs = cast("Mapping[Any, Any]", values).items()
            return repr([(self.describe(name, module), self.describe(one, module)) for name, one in pairs])
        return f"{type(values).__name__} {[self.describe(one, module) for one in values]}"

    def _object(self, value: Any, module: str) -> str:  # noqa: ANN401 - any object
        """Its class and content: the numbers of an array, fields, what it calls."""
        if isinstance(value, ModuleType):
            return value.__name__
        cls = type(value)
        if (numbers := _numbers(value)) is not None:
            return f"{numbers.dtype} {numbers.shape} {hashlib.sha256(numbers.tobytes()).hexdigest()}"
        held: list[object] = list(_inside(value))
        if self._is_near(cls.__module__, module):
            held += [cls, vars(value) if hasattr(value, "__dict__") else None]
        elif isinstance(value, partial):
            held += [value.args, value.keywords]
        elif isinstance(value, MethodType):
            held += [value.__self__]
        elif dataclasses.is_dataclass(cls):
            held += [getattr(value, one.name, None) for one in dataclasses.fields(cls)]
        return f"{_name(cls)} {getattr(value, '__name__', '')} {[self.describe(one, module) for one in held]}"

    def _is_near(self, other: str | None, module: str) -> bool:
        return other is not None and (other == module or _package(other) == self.package)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _name(value: Any) -> str:  # noqa: ANN401 - a class or a function
    return f"{value.__module__}.{value.__qualname__}"


def _inside(value: object) -> tuple[Any, ...]:
    found = (getattr(value, name, None) for name in _INSIDE)
    return tuple(one for one in found if callable(one))


def _numbers(value: Any) -> "np.ndarray | None":  # noqa: ANN401 - any object
    """The numbers of an array or a tensor; None for anything else."""
    if not hasattr(value, "__array__"):
        return None
    try:
        numbers = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):  # an array only by name
        return None
    return None if numbers.dtype == object else numbers


def _names_in(code: CodeType) -> tuple[str, ...]:
    """The names in a code and in those within it, in order, each once."""
    inner = (name for one in code.co_consts if isinstance(one, CodeType) for name in _names_in(one))
    return tuple(dict.fromkeys((*code.co_names, *inner)))


def _content(cell: Any) -> object:  # noqa: ANN401 - a closure's cell
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None
