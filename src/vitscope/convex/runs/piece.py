"""Pieces of an answer about heads: what one fit came to, as bytes in which nothing can run code."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


class AbstractPiece(ABC):
    """What one fit came to."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The piece as it is kept."""


def pack_arrays(values: Mapping[str, Any]) -> bytes:
    """Arrays, numbers and words by name, as the bytes of an ``.npz`` file."""
    file = io.BytesIO()
    cast(Any, np.savez)(file, **{name: np.asarray(value) for name, value in values.items()})
    return file.getvalue()


def unpack_arrays(content: bytes) -> dict[str, Any]:
    """What :func:`pack_arrays` made into bytes; arrays without an axis come back as numbers and words."""
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        arrays = cast("Mapping[str, NDArray[Any]]", kept)
        return {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
