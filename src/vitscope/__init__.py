"""How vision transformers work, measured.

``load`` a model, take ``images``, and ``measure`` any diagnostics in one pass, or have a whole ``checkup`` with a
``report``::

    subject = vitscope.load("timm/vit_tiny_patch16_224", pretrained=True)
    run = vitscope.checkup(subject, vitscope.images("photos/"))
    vitscope.report(run, "page.html")

Names are imported at their first use, so that the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING

from vitscope.report import report

if TYPE_CHECKING:
    from vitscope.data import images
    from vitscope.diagnostics import default_diagnostics
    from vitscope.engine.measure import Plan, measure
    from vitscope.engine.study import study
    from vitscope.findings.checkup import checkup
    from vitscope.models.load import load
    from vitscope.models.pixels import PixelInput
    from vitscope.runs.store import RunFolder, read_run

_HOMES = {
    "PixelInput": "vitscope.models.pixels",
    "Plan": "vitscope.engine.measure",
    "RunFolder": "vitscope.runs.store",
    "checkup": "vitscope.findings.checkup",
    "default_diagnostics": "vitscope.diagnostics",
    "images": "vitscope.data",
    "load": "vitscope.models.load",
    "measure": "vitscope.engine.measure",
    "read_run": "vitscope.runs.store",
    "study": "vitscope.engine.study",
}

__all__ = [
    "PixelInput",
    "Plan",
    "RunFolder",
    "checkup",
    "default_diagnostics",
    "images",
    "load",
    "measure",
    "read_run",
    "report",
    "study",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found
