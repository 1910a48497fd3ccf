"""The page and the figures of a run. Knows no diagnostic by name: axes and attributes say how a quantity is shown."""

from vitscope.report.page import report
from vitscope.report.static import figures

__all__ = ["figures", "report"]
