"""Convex heads on frozen features: attention, mixer, Fourier and MLP heads trained to certified global optimality.

Names are imported at their first use::

    from vitscope.convex import ConvexAttentionClassifier

    head = ConvexAttentionClassifier(beta=1e-3, tol=1e-4).fit(tokens, labels)
    head.certificate_.relative_gap, head.to_module()
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitscope.convex.blocks.attention import ConvexAttentionClassifier, ConvexAttentionRegressor
    from vitscope.convex.blocks.block_fno import ConvexBlockFnoClassifier, ConvexBlockFnoRegressor
    from vitscope.convex.blocks.fno import ConvexFnoClassifier, ConvexFnoRegressor
    from vitscope.convex.blocks.linear import ConvexLinearClassifier, ConvexLinearRegressor
    from vitscope.convex.blocks.mixer import ConvexMixerClassifier, ConvexMixerRegressor
    from vitscope.convex.blocks.mlp import ConvexMlpClassifier, ConvexMlpRegressor
    from vitscope.convex.certificate import Certificate, certify
    from vitscope.convex.features import TokenRecipe, extract
    from vitscope.convex.module import ConvexHead
    from vitscope.convex.saved import load, save

_HOMES = {
    "Certificate": "vitscope.convex.certificate",
    "ConvexHead": "vitscope.convex.module",
    "TokenRecipe": "vitscope.convex.features",
    "certify": "vitscope.convex.certificate",
    "extract": "vitscope.convex.features",
    "load": "vitscope.convex.saved",
    "save": "vitscope.convex.saved",
}

__all__ = [
    "Certificate",
    "ConvexAttentionClassifier",
    "ConvexAttentionRegressor",
    "ConvexBlockFnoClassifier",
    "ConvexBlockFnoRegressor",
    "ConvexFnoClassifier",
    "ConvexFnoRegressor",
    "ConvexHead",
    "ConvexLinearClassifier",
    "ConvexLinearRegressor",
    "ConvexMixerClassifier",
    "ConvexMixerRegressor",
    "ConvexMlpClassifier",
    "ConvexMlpRegressor",
    "TokenRecipe",
    "certify",
    "extract",
    "load",
    "save",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    elif name.startswith("Convex") and name in (
        known := importlib.import_module("vitscope.convex.estimator").estimators()
    ):
        found = known[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
