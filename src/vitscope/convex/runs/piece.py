"""Pieces of an answer about heads: the result of one fit, as bytes that cannot run code."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


class AbstractPiece(ABC):
    """The result of one fit."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The piece as it is stored."""


def pack_arrays(values: Mapping[str, Any]) -> bytes:
    """Arrays, numbers and strings by name, as the bytes of an ``.npz`` file."""
    file = io.BytesIO()
    cast(Any, np.savez)(file, **{name: np.asarray(value) for name, value in values.items()})
    return file.getvalue()


def unpack_arrays(content: bytes) -> dict[str, Any]:
    """The values that :func:`pack_arrays` packed; arrays without an axis come back as numbers and strings."""
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        arrays = cast("Mapping[str, NDArray[Any]]", kept)
        return {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
