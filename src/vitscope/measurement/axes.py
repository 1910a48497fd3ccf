"""The vocabulary of axis names; every dimension of every result is one of these."""

from collections.abc import Mapping
from types import MappingProxyType

AXES: Mapping[str, str] = MappingProxyType(
    {
        "layer": "depth of the network: 0 is the stem, i the i-th unit",
        "head": "attention head",
        "frequency": "spatial frequency, in units of the Nyquist frequency (pi radians a cell)",
        "confidence_bin": "interval of the largest predicted probability",
        "epoch": "pass over the training set",
        "batch": "image of a batch",
        "channels": "channel of a feature map",
        "height": "row of an image or feature map",
        "width": "column of an image or feature map",
        "tokens": "token, prefix tokens first, then patches row by row",
        "dim": "entry of a token",
        "heads": "attention head of an activation",
        "queries": "query of an attention window",
        "keys": "key of an attention window",
        "windows": "attention window",
        "classes": "class of the model",
    }
)
