"""How vision transformers work, measured.

``load`` a model, take ``images``, and ``measure`` any diagnostics in one pass, or run a whole ``checkup`` with a
``report``::

    subject = vitscope.load("timm/vit_tiny_patch16_224", pretrained=True)
    run = vitscope.checkup(subject, vitscope.images("photos/"))
    vitscope.report(run, "page.html")

Diagnostics and studies go by the names that ``vitscope list`` shows: ``vitscope.study(subject, images, "lesion")``.
Names are imported on first use, so that the command line starts quickly.
"""

import importlib
from typing import TYPE_CHECKING

from vitscope.report import compare, figures, report

if TYPE_CHECKING:
    from vitscope.data import images
    from vitscope.deploy.bench import bench
    from vitscope.deploy.export import export
    from vitscope.diagnostics import default_diagnostics
    from vitscope.engine.contrast import contrast
    from vitscope.engine.measure import measure
    from vitscope.engine.plan import Plan
    from vitscope.engine.question import carry_out
    from vitscope.engine.study import study
    from vitscope.findings.checkup import checkup
    from vitscope.improvement.improve import improve
    from vitscope.measurement.errors import UserError
    from vitscope.models.load import load
    from vitscope.models.pixels import PixelInput
    from vitscope.models.saved import save
    from vitscope.runs.run import Run
    from vitscope.runs.store import RunFolder, read_run
    from vitscope.training.recipe import Recipe
    from vitscope.training.train import train
    from vitscope.training.trials import Grid, trials

__version__ = "0.1.0"

_HOMES = {
    "Grid": "vitscope.training.trials",
    "PixelInput": "vitscope.models.pixels",
    "Plan": "vitscope.engine.plan",
    "Run": "vitscope.runs.run",
    "Recipe": "vitscope.training.recipe",
    "RunFolder": "vitscope.runs.store",
    "UserError": "vitscope.measurement.errors",
    "bench": "vitscope.deploy.bench",
    "carry_out": "vitscope.engine.question",
    "checkup": "vitscope.findings.checkup",
    "contrast": "vitscope.engine.contrast",
    "default_diagnostics": "vitscope.diagnostics",
    "export": "vitscope.deploy.export",
    "images": "vitscope.data",
    "improve": "vitscope.improvement.improve",
    "load": "vitscope.models.load",
    "measure": "vitscope.engine.measure",
    "read_run": "vitscope.runs.store",
    "save": "vitscope.models.saved",
    "study": "vitscope.engine.study",
    "train": "vitscope.training.train",
    "trials": "vitscope.training.trials",
}

__all__ = [
    "Grid",
    "PixelInput",
    "Plan",
    "Recipe",
    "Run",
    "RunFolder",
    "UserError",
    "__version__",
    "bench",
    "carry_out",
    "checkup",
    "compare",
    "contrast",
    "default_diagnostics",
    "export",
    "figures",
    "images",
    "improve",
    "load",
    "measure",
    "read_run",
    "report",
    "save",
    "study",
    "train",
    "trials",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        from vitscope.measurement.nearest import nearest

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{nearest(name, __all__)}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return list(__all__)
