"""What is said of a registered class, whatever it is."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitscope.cli.documentation import Field, plain
from vitscope.runs.registry import registered_by_others

KINDS: Mapping[str, str] = {
    "diagnostic": "Diagnostics",
    "curvature diagnostic": "Diagnostics",
    "study": "Studies",
    "intervention": "Interventions",
    "kind of head": "Convex heads",
    "solver": "Solvers",
    "lab": "Labs",
    "finding": "Findings",
    "adapter": "Model families",
}
"""The registries' kinds, in the order in which they are listed, and what the kind is called there."""


@dataclass(frozen=True)
class Entry:
    """One registered class, in words."""

    name: str
    home: str
    """``module:class``."""
    definition: str
    """Its docstring, with its markup."""
    facts: tuple[tuple[str, str], ...]
    """What its attributes say: title, references, rule."""
    quantities: tuple[tuple[str, str, str, str], ...]
    """What it measures: name, unit, axis, meaning."""
    fields: tuple[Field, ...]

    @property
    def summary(self) -> str:
        """The definition's first paragraph, without markup."""
        return plain(self.definition.split("\n\n")[0].replace("\n", " "))

    def load(self) -> type[Any]:
        """The class itself."""
        module, _, name = self.home.partition(":")
        foreign = {home_of(cls): cls for _, _, cls in registered_by_others()}
        return foreign.get(self.home) or getattr(importlib.import_module(module), name)


def home_of(cls: type) -> str:
    """Where a class is defined."""
    return f"{cls.__module__}:{cls.__qualname__}"
