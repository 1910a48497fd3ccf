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
        "lesion": "unit that was replaced, by its layer",
        "lesion_head": "attention head that was replaced",
        "frequency_band": "centre of a band of spatial frequency, in units of the Nyquist frequency",
        "corruption": "kind of common corruption",
        "severity": "level of a corruption, 1 to 5",
        "keep": "share of the patch tokens that is kept",
        "ranking": "by what tokens are ranked",
        "sparsity": "share of the weights that is zero",
        "shape": "what attention is replaced by",
        "first": "displacement along the first direction",
        "second": "displacement along the second direction",
        "minibatch": "mini-batch whose loss is differentiated",
        "rank": "place of an eigenvalue in order, 0 is the outermost",
        "part": "unit or module whose weights are differentiated by",
        "eigenvalue": "value of a Hessian eigenvalue",
        "run": "run that is compared",
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
