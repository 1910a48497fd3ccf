"""A selection of the pictures of a source."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int
from PIL import Image
from typing_extensions import override

from vitscope.data.decode import Decoding
from vitscope.data.source import AbstractPictures


@final
@dataclass(frozen=True, eq=False)
class TakenPictures(AbstractPictures):
    """The pictures of another source at these places, in this order."""

    whole: AbstractPictures
    places: Int[np.ndarray, "taken"]

    def __len__(self) -> int:
        return len(self.places)

    @override
    def name(self, position: int) -> str:
        return self.whole.name(int(self.places[position]))

    @override
    def content(self, position: int) -> bytes:
        return self.whole.content(int(self.places[position]))

    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        return self.whole.read(int(self.places[position]), decoding)
