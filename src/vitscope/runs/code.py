"""What code a class of somebody's own consists of, so that a run of one version is never taken for that of another."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any, cast

from vitscope.runs.registry import is_own

_PLAIN = (str, bytes, int, float, complex, tuple, frozenset, type(None))


def versioned(value: object) -> Mapping[str, str]:
    """What a run's spec has to say of a value besides its fields: the digest of its class' code, if it is foreign.

    The project's own classes have none. It covers the functions and plain constants of the class, of its foreign bases
    and the functions of the same module that these call by name.
    """
    foreign = [cls for cls in type(value).__mro__ if not is_own(cls) and cls is not object and _has_code(cls)]
    if not foreign:
        return {}
    said = "\n".join(line for cls in foreign for line in _class(cls))
    return {"code": hashlib.sha256(said.encode()).hexdigest()[:16]}


def _has_code(cls: type) -> bool:
    """Whether it is more than a class of Python's own, such as ``ABC``."""
    return cls.__module__ not in ("abc", "typing", "builtins")


def _class(cls: type) -> Iterator[str]:
    seen: set[CodeType] = set()
    for name, member in sorted(vars(cls).items()):
        functions = [one for one in _functions(member) if isinstance(one, FunctionType)]
        for function in functions:
            yield f"{name}: {_function(function, seen)}"
        if not functions and isinstance(member, _PLAIN) and not name.startswith("__"):
            yield f"{name} = {_constant(member, seen)}"


def _functions(member: Any) -> tuple[object, ...]:  # noqa: ANN401 - whatever a class may hold
    if isinstance(member, property):
        return (member.fget, member.fset)
    if isinstance(member, cached_property):
        return (cast("cached_property[Any]", member).func,)
    return (getattr(member, "__func__", member),)


def _function(function: FunctionType, seen: set[CodeType]) -> str:
    """Its code, and that of the functions of its module that it names."""
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    near = [one for one in named if isinstance(one, FunctionType) and one.__module__ == function.__module__]
    own = _code(function.__code__, seen)
    return " ".join([own, *(_function(one, seen) for one in near if one.__code__ not in seen)])


def _code(code: CodeType, seen: set[CodeType]) -> str:
    seen.add(code)
    return f"{code.co_code.hex()} {code.co_names} {[_constant(one, seen) for one in code.co_consts]}"


def _constant(value: object, seen: set[CodeType]) -> str:
    if isinstance(value, CodeType):
        return _code(value, seen)
    return repr(sorted(map(repr, cast("frozenset[object]", value)))) if isinstance(value, frozenset) else repr(value)
