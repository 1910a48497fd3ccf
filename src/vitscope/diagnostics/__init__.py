"""Diagnostics, one file each; imported when one of them is looked for."""

from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic


def default_diagnostics() -> tuple[AnyDiagnostic, ...]:
    """Every registered diagnostic at its default settings."""
    return tuple(diagnostic() for _, diagnostic in DIAGNOSTICS.items())
