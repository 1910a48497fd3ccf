"""Registries: the classes of a kind by name, from which the command line, docs and law tests are built."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, TypeVar, cast, get_origin

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest

T = TypeVar("T")
Member = TypeVar("Member")

PLUGINS = "vitscope.plugins"
"""The entry-point group in which an installed package names its modules that register classes."""

_REGISTRIES: list["Registry[Any]"] = []
_TRIED: set[EntryPoint] = set()
"""The plugins that this process has already tried to load."""


class PluginWarning(UserWarning):
    """A plugin could not be loaded and is left out."""


class Registry(Generic[T]):
    """Named classes of one kind. The decorator :meth:`add` registers a class when its file is imported.

    ``package`` holds the project's own classes; its files are imported when a name is first looked up, and plugins
    after them. Members are frozen dataclasses derived from ``base``; if ``settled``, all their fields must have
    defaults.
    """

    def __init__(self, kind: str, package: str = "", base: type[Any] | None = None, settled: bool = True) -> None:
        self.kind = kind
        self.base = base
        self.settled = settled
        self._package = package
        self._imported = False
        self._classes: dict[str, type[T]] = {}
        _REGISTRIES.append(self)

    def add(self, name: str) -> Callable[[type[Member]], type[Member]]:
        """Decorator that registers a class under a name.

        A class replaces one of the same name and module, as when a notebook's cell is run again. ``UserError`` for a
        name that another module has taken, or an incomplete class.
        """

        def register(cls: type[Member]) -> type[Member]:
            if not is_own(cls):
                self._import()  # so that the project's own names are taken first
            self._refuse_taken(name, cls)
            self._refuse_unfinished(name, cls)
            self._classes[name] = cast("type[T]", cls)  # the caller keeps the exact type
            return cls

        return register

    def __getitem__(self, name: str) -> type[T]:
        if name not in self:
            raise UserError(
                f"There is no {self.kind} named {name!r}{nearest(name, self)}; there are: {list_names(self)}."
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        self._fill()
        return len(self._classes)

    def items(self) -> Iterator[tuple[str, type[T]]]:
        """Names and classes, sorted by name."""
        return ((name, self._classes[name]) for name in self)

    def list_foreign(self) -> Mapping[str, type[T]]:
        """The classes that plugins, notebooks and scripts have registered so far."""
        return {name: cls for name, cls in sorted(self._classes.items()) if not is_own(cls)}

    def forget(self, names: Iterable[str]) -> None:
        """Remove the classes of these names."""
        for name in names:
            del self._classes[name]

    def _import(self) -> None:
        if self._imported or not self._package:
            return
        self._imported = True  # before the import, as the files may look up each other's names
        try:
            import_all(self._package)
        except BaseException:
            self._imported = False
            raise

    def _fill(self) -> None:
        if self._package:
            self._import()
            load_plugins()

    def _refuse_taken(self, name: str, cls: type) -> None:
        held = self._classes.get(name)
        if held is None or (held.__module__ == cls.__module__ and not is_own(cls)):
            return
        whose = "vitscope itself" if is_own(held) else held.__module__
        raise UserError(
            f"The {self.kind} name {name!r} is taken by {held.__name__} of {whose}; give {cls.__name__} another name."
        )

    def _refuse_unfinished(self, name: str, cls: type) -> None:
        whose = f"The {self.kind} {name!r} ({cls.__name__})"
        if not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}("):  # the default of a dataclass
            raise UserError(f"{whose} has no docstring; write one, as it is the class's help and definition.")
        if self.base is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise UserError(f"{whose} has a name of more than letters, digits, dashes, dots and underscores.")
        if not issubclass(cls, self.base):
            raise UserError(f"{whose} is not a subclass of {self.base.__name__}; make it one.")
        _refuse_partial(whose, cls, self.base)
        if cast(Any, cls).name != name:
            raise UserError(f"{whose} has the attribute name = {cast(Any, cls).name!r}; make both names the same.")
        if self.settled and (required := _required_fields(cls)):
            raise UserError(f"{whose} has fields without a default: {', '.join(required)}; give them one.")


def resolve_names(given: object, *registries: Registry[Any]) -> tuple[Any, ...]:
    """The values for names, classes or values of these registries, one or several, each once.

    ``UserError`` for anything else, and for two different values of the same name.
    """
    several = cast(Iterable[object], given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    found: dict[str, Any] = {}
    for value in (value_of(one, *registries) for one in several):
        held = found.setdefault(value.name, value)
        if held is not value and held != value:
            raise UserError(f"{value.name!r} was given twice with different settings; measure one per run.")
    return tuple(found.values())


def value_of(one: object, *registries: Registry[Any]) -> Any:  # noqa: ANN401 - a member of some registry
    """The value for a name or a class of these registries, at its default settings; a value is returned as it is."""
    kind, bases = registries[0].kind, tuple(registry.base for registry in registries if registry.base)
    if isinstance(one, str):
        return _of_class(_class_named(one, registries))
    if isinstance(one, type) and issubclass(one, bases) and not inspect.isabstract(one):
        return _of_class(one)
    if isinstance(one, bases):
        _refuse_partial(type(one).__name__, type(one), next(base for base in bases if isinstance(one, base)))
        return one
    shown = one.__name__ if isinstance(one, type) else f"{one!r:.60}"
    names = list_names(sorted(name for registry in registries for name in registry))
    raise UserError(f"{shown} is no {kind}; give a value, a class or one of these names: {names}.")


def _class_named(name: str, registries: tuple[Registry[Any], ...]) -> type:
    known = {one: registry for registry in registries for one in registry}
    if name not in known:
        others = [one.kind for one in _REGISTRIES if one.base and name in one]
        kinds = " and ".join(f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in sorted(others))
        hint = f" (it is {kinds})" if kinds else nearest(name, known)
        raise UserError(
            f"There is no {registries[0].kind} named {name!r}{hint}; there are: {list_names(sorted(known))}."
        )
    return known[name][name]


def _of_class(cls: type[Any]) -> object:
    """An instance at the class's default settings."""
    if required := _required_fields(cls):
        settings = ", ".join(f"{name}=..." for name in required)
        raise UserError(f"{cls.__name__} has no default settings; give a value: {cls.__name__}({settings}).")
    return cls()


def _refuse_partial(whose: str, cls: type, base: type) -> None:
    """Raise ``UserError`` for a class that lacks a member its base requires, or is not a dataclass."""
    if lacking := _missing_members(cls, base):
        raise UserError(f"{whose} lacks {', '.join(lacking)}, which {base.__name__} requires; add what is missing.")
    if "__dataclass_fields__" not in vars(cls):
        raise UserError(f"{whose} is not a dataclass; put @dataclass(frozen=True) right above the class.")


def _required_fields(cls: type[Any]) -> list[str]:
    """The fields that have no default."""
    absent = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return [one.name for one in fields if one.init and one.default is absent and one.default_factory is absent]


def _missing_members(cls: type, base: type) -> list[str]:
    """Methods and class attributes that the base declares and the class does not define."""
    declared = {
        name
        for one in base.__mro__
        for name, kind in inspect.get_annotations(one).items()
        if get_origin(kind) is ClassVar
    }
    abstract = getattr(cls, "__abstractmethods__", frozenset[str]())
    return sorted({*abstract, *(name for name in declared if not hasattr(cls, name))})


def is_own(cls: type) -> bool:
    """Whether the class belongs to this project."""
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def list_names(names: Iterable[str]) -> str:
    """Names separated by commas, or ``none``."""
    return ", ".join(names) or "none"


def list_foreign_classes() -> Iterator[tuple[str, str, type]]:
    """Kind, name and class of all that plugins, notebooks and scripts have registered."""
    load_plugins()
    for registry in _REGISTRIES:
        for name, cls in registry.list_foreign().items():
            yield registry.kind, name, cls


def load_plugins() -> None:
    """Import the modules that installed packages name under :data:`PLUGINS`, once per process.

    If one cannot be imported, a :class:`PluginWarning` says why, and nothing of it stays registered.
    """
    for plugin in _installed_plugins():
        if plugin not in _TRIED:
            _TRIED.add(plugin)
            _load(plugin)


@cache
def _installed_plugins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=PLUGINS))


def _load(plugin: EntryPoint) -> None:
    before = {registry: set(registry.list_foreign()) for registry in _REGISTRIES}
    try:
        plugin.load()
    except (Exception, SystemExit) as error:
        for registry in _REGISTRIES:
            registry.forget(registry.list_foreign().keys() - before.get(registry, set()))
        why = (str(error).splitlines() or [""])[0].rstrip(".")
        what = f"{type(error).__name__}{': ' if why else ''}{why}"
        warnings.warn(f"The plugin {plugin.name} ({plugin.value}) is left out: {what}.", PluginWarning, stacklevel=2)


def import_all(package: str) -> None:
    """Import every module of a package, so that their classes are registered."""
    found = importlib.import_module(package)
    for module in sorted(pkgutil.iter_modules(found.__path__), key=lambda module: module.name):
        importlib.import_module(f"{package}.{module.name}")
