"""What is kept of a model's last stream."""

from dataclasses import dataclass
from typing import final

from vitscope.measurement.errors import UserError


@final
@dataclass(frozen=True)
class TokenRecipe:
    """What is kept of a model's last stream; applied in the order normalise, pool, project."""

    pool: int | None = None
    """Side of the grid after averaging neighbouring patches (adaptive average pooling); None keeps every patch."""
    width: int | None = None
    """Number of principal components kept of the tokens' entries; None keeps the entries as they are."""
    normalise: bool = True
    """Each token to zero mean and unit variance over its entries, as a LayerNorm without affine part does."""
    prefix: bool = False
    """Whether prefix tokens (class, distillation, registers) are kept, before the patches."""

    def __post_init__(self) -> None:
        for what, value in (("pool", self.pool), ("width", self.width)):
            if value is not None and value < 1:
                raise UserError(f"The recipe's {what} is {value}; give at least 1, or None to keep everything.")
