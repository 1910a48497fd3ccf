"""Studies, one file each; imported on first use."""

from vitscope.engine.grid import STUDIES, AbstractStudy


def all_studies() -> tuple[type[AbstractStudy], ...]:
    """Every registered study's class, in the order of their names."""
    return tuple(study for _, study in STUDIES.items())
