"""How vision transformers work, measured.

``load`` a model, take ``images``, and ``measure`` any diagnostics in one pass, or have a whole ``checkup`` with a
``report``::

    subject = vitscope.load("timm/vit_tiny_patch16_224", pretrained=True)
    run = vitscope.checkup(subject, vitscope.images("photos/"))
    vitscope.report(run, "page.html")
"""

from vitscope.data import images
from vitscope.diagnostics import default_diagnostics
from vitscope.engine.measure import Plan, measure
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput

__all__ = ["PixelInput", "Plan", "default_diagnostics", "images", "load", "measure"]
