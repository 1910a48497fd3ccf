"""Interventions, one file each; imported on first use."""

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention


def all_interventions() -> tuple[type[AbstractIntervention], ...]:
    """Every registered intervention's class, in the order of their names."""
    return tuple(intervention for _, intervention in INTERVENTIONS.items())
