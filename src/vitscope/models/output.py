"""What a module returns, as one row of numbers an image: logits, or the features of a tower without a classifier."""

from jaxtyping import Float
from torch import Tensor

_NAMES = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
"""Where the outputs of transformers keep them, what is nearest to a decision first."""


def rows_of(output: object) -> Float[Tensor, "batch width"] | None:
    """Logits, or features if there are none; None for what is neither.

    A tensor of two axes is taken as it is. Of an output of transformers, its logits are taken, else its image
    embedding, else its pooled output, else the mean of its last hidden state over tokens or positions.
    """
    if isinstance(output, Tensor):
        return output if output.ndim == 2 else None
    for name in _NAMES:
        found = getattr(output, name, None)
        if isinstance(found, Tensor) and found.ndim >= 2:
            return _over_positions(found, tokens=name == "last_hidden_state")
    return None


def _over_positions(values: Tensor, tokens: bool) -> Float[Tensor, "batch width"] | None:
    if values.ndim == 2:
        return values
    if values.ndim == 3 and tokens:
        return values.mean(1)
    if values.ndim == 4:  # maps, channels first: transformers' convolutional towers
        return values.mean((2, 3))
    return None
