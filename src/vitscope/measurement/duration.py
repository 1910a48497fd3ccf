"""Durations as people write them."""


def format_duration(seconds: float | int) -> str:
    """``40 s``, ``12 min``, ``2.5 h``: no more digits than an estimate deserves."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
