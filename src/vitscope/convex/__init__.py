"""Convex heads on frozen features: attention, mixer, Fourier and MLP heads trained to certified global optimality.

Names are imported at their first use::

    from vitscope.convex import ConvexAttentionClassifier

    head = ConvexAttentionClassifier(beta=1e-3, tol=1e-4).fit(tokens, labels)
    head.certificate_.relative_gap, head.to_module()
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitscope.convex.certificate import Certificate, certify
    from vitscope.convex.estimators.attention import ConvexAttentionClassifier, ConvexAttentionRegressor
    from vitscope.convex.estimators.block_fno import ConvexBlockFnoClassifier, ConvexBlockFnoRegressor
    from vitscope.convex.estimators.fno import ConvexFnoClassifier, ConvexFnoRegressor
    from vitscope.convex.estimators.linear import ConvexLinearClassifier, ConvexLinearRegressor
    from vitscope.convex.estimators.mixer import ConvexMixerClassifier, ConvexMixerRegressor
    from vitscope.convex.estimators.mlp import ConvexMlpClassifier, ConvexMlpRegressor
    from vitscope.convex.features import TokenRecipe, extract
    from vitscope.convex.module import ConvexHead
    from vitscope.convex.saved import load, save

_HOMES = {
    "Certificate": "vitscope.convex.certificate",
    "ConvexAttentionClassifier": "vitscope.convex.estimators.attention",
    "ConvexAttentionRegressor": "vitscope.convex.estimators.attention",
    "ConvexBlockFnoClassifier": "vitscope.convex.estimators.block_fno",
    "ConvexBlockFnoRegressor": "vitscope.convex.estimators.block_fno",
    "ConvexFnoClassifier": "vitscope.convex.estimators.fno",
    "ConvexFnoRegressor": "vitscope.convex.estimators.fno",
    "ConvexHead": "vitscope.convex.module",
    "ConvexLinearClassifier": "vitscope.convex.estimators.linear",
    "ConvexLinearRegressor": "vitscope.convex.estimators.linear",
    "ConvexMixerClassifier": "vitscope.convex.estimators.mixer",
    "ConvexMixerRegressor": "vitscope.convex.estimators.mixer",
    "ConvexMlpClassifier": "vitscope.convex.estimators.mlp",
    "ConvexMlpRegressor": "vitscope.convex.estimators.mlp",
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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found
