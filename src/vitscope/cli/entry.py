"""The description of a registered class of any kind."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitscope.cli.documentation import Field, plain
from vitscope.runs.registry import list_foreign_classes

KINDS: Mapping[str, str] = {
    "diagnostic": "Diagnostics",
    "curvature diagnostic": "Diagnostics",
    "study": "Studies",
    "intervention": "Interventions",
    "kind of head": "Convex heads",
    "solver": "Solvers",
    "backend": "Backends",
    "lab": "Labs",
    "finding": "Findings",
    "adapter": "Model families",
}
"""The registries' kinds, in the order in which they are listed, with the heading of each."""


@dataclass(frozen=True)
class Entry:
    """One registered class, in words."""

    name: str
    home: str
    """``module:class``."""
    definition: str
    """Its docstring, with its markup."""
    facts: tuple[tuple[str, str], ...]
    """Its attributes' texts: title, references, rule."""
    quantities: tuple[tuple[str, str, str, str], ...]
    """What it measures: name, unit, axis, meaning."""
    fields: tuple[Field, ...]

    @property
    def summary(self) -> str:
        """The definition's first paragraph, without markup."""
        return plain(self.definition.split("\n\n")[0].replace("\n", " "))

    def load(self) -> type[Any]:
        """Import the class."""
        module, _, name = self.home.partition(":")
        foreign = {home_of(cls): cls for _, _, cls in list_foreign_classes()}
        return foreign.get(self.home) or getattr(importlib.import_module(module), name)


def home_of(cls: type) -> str:
    """Where a class is defined, as ``module:class``."""
    return f"{cls.__module__}:{cls.__qualname__}"
