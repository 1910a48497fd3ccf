"""How a quantity is drawn, by its axes: once for the page (plotly), once for a paper (matplotlib)."""

from vitscope.report.drawing.choice import drawings
from vitscope.report.drawing.drawing import AbstractDrawing

__all__ = ["AbstractDrawing", "drawings"]
