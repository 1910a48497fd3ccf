"""Studies, one file each; importing this package's files registers them all."""

from vitscope.engine.grid import STUDIES, AbstractStudy
from vitscope.runs.registry import import_all


def all_studies() -> tuple[type[AbstractStudy], ...]:
    """Every registered study's class, in the order of their names."""
    import_all("vitscope.interventions.studies")
    return tuple(study for _, study in STUDIES.items())
