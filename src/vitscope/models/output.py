"""A module's output as one row of numbers per image: logits, or the features of a tower without a classifier."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import cast

from jaxtyping import Float
from torch import Tensor

_NAMES = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
"""Attributes of transformers' outputs that hold them, the nearest to a decision first."""


def rows_of(output: object) -> Float[Tensor, "batch width"] | None:
    """Logits, or features if there are none; None for anything else.

    A tensor with two axes is taken as it is; a mapping gives its ``logits``. An output of transformers gives its
    logits, else its image embedding, else its pooled output, else the mean of its last hidden state over tokens or
    positions. Several tensors without names give None.
    """
    if isinstance(output, Tensor):
        return output if output.ndim == 2 else None
    if type(output) in (dict, OrderedDict):
        logits = cast("Mapping[object, object]", output).get("logits")
        return logits if isinstance(logits, Tensor) and logits.ndim == 2 else None
    for name in _NAMES:
        found = getattr(output, name, None)
        if isinstance(found, Tensor) and found.ndim >= 2:
            return _over_positions(found, tokens=name == "last_hidden_state")
    return None


def describe_output(output: object) -> str:
    """A module's output described by shapes and names, as part of a sentence."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        held = cast("Mapping[object, object]", output)
        return f"a {kind} of {_together(f'{key!r}: {_short(value)}' for key, value in held.items())}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {_together(_short(value) for value in cast('tuple[object, ...]', output))}"
    return f"a {kind}"


def is_squeezed(output: object) -> bool:
    """Whether it is one row of numbers, as ``squeeze()`` without an axis makes of a batch of one."""
    return isinstance(output, Tensor) and output.ndim == 1


def _short(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _together(texts: Iterable[str]) -> str:
    shown = list(texts)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "") if shown else "nothing"


def _over_positions(values: Tensor, tokens: bool) -> Float[Tensor, "batch width"] | None:
    if values.ndim == 2:
        return values
    if values.ndim == 3 and tokens:
        return values.mean(1)
    if values.ndim == 4:  # maps, channels first: transformers' convolutional towers
        return values.mean((2, 3))
    return None
