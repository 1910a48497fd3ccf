"""Interventions, one file each; imported on first use."""

import importlib
from typing import TYPE_CHECKING

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention

if TYPE_CHECKING:
    from vitscope.interventions.low_rank import LowRank
    from vitscope.interventions.remove_heads import RemoveHeads
    from vitscope.interventions.remove_neurons import RemoveNeurons
    from vitscope.interventions.remove_units import RemoveUnits
    from vitscope.interventions.temperature import Temperature

_HOMES = {
    "LowRank": "low_rank",
    "RemoveHeads": "remove_heads",
    "RemoveNeurons": "remove_neurons",
    "RemoveUnits": "remove_units",
    "Temperature": "temperature",
}

__all__ = ["LowRank", "RemoveHeads", "RemoveNeurons", "RemoveUnits", "Temperature", "all_interventions"]


def all_interventions() -> tuple[type[AbstractIntervention], ...]:
    """Every registered intervention's class, in the order of their names."""
    return tuple(intervention for _, intervention in INTERVENTIONS.items())


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
