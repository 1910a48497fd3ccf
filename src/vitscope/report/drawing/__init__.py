"""How a quantity is drawn, depending on its axes: for the page (plotly) and for a paper (matplotlib)."""

from vitscope.report.drawing.choice import drawings
from vitscope.report.drawing.drawing import AbstractDrawing

__all__ = ["AbstractDrawing", "drawings"]
