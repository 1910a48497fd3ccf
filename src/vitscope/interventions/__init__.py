"""Interventions, one file each; importing this package's files registers them all."""

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.runs.registry import import_all


def all_interventions() -> tuple[type[AbstractIntervention], ...]:
    """Every registered intervention's class, in the order of their names."""
    import_all("vitscope.interventions")
    return tuple(intervention for _, intervention in INTERVENTIONS.items())
