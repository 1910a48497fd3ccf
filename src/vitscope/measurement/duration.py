"""Lengths of time as people say them."""


def format_duration(seconds: float | int) -> str:
    """``40 s``, ``12 min``, ``2.5 h``: as finely as a length that is only estimated can be known."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
