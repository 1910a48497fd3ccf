"""Diagnostics, one per file, imported when one is first looked up."""

from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic


def default_diagnostics() -> tuple[AnyDiagnostic, ...]:
    """Every registered diagnostic at its default settings."""
    return tuple(diagnostic() for _, diagnostic in DIAGNOSTICS.items())
