"""The types of a corruption's arguments and result."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Picture = UInt8[np.ndarray, "height width channels"]
"""A picture of 1 (grey) or 3 (RGB) channels, 0 to 255."""
Levels = Float[np.ndarray, "height width channels"]
"""A corrupted picture, on the same scale; the caller clips and rounds down, as the published sets do."""
Parameters = tuple[float | int, ...]
CorruptionFunction = Callable[[Picture, Parameters, np.random.Generator], Levels]
