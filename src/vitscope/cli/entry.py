"""What is said of a registered class, whatever it is."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitscope.cli.documentation import Field, plain

KINDS: Mapping[str, str] = {
    "diagnostic": "Diagnostics",
    "curvature diagnostic": "Diagnostics",
    "study": "Studies",
    "intervention": "Interventions",
    "block": "Convex heads",
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
        return getattr(importlib.import_module(module), name)
