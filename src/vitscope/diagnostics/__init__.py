"""Diagnostics, one file each; importing this package registers them all."""

from vitscope.engine.diagnostic import DIAGNOSTICS, AnyDiagnostic
from vitscope.runs.registry import import_all


def default_diagnostics() -> tuple[AnyDiagnostic, ...]:
    """Every registered diagnostic at its default settings."""
    import_all("vitscope.diagnostics")
    return tuple(diagnostic() for _, diagnostic in DIAGNOSTICS.items())
