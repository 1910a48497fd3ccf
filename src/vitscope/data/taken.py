"""Some of the pictures of a source."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int
from PIL import Image

from vitscope.data.decode import Decoding
from vitscope.data.source import AbstractPictures


@final
@dataclass(frozen=True, eq=False)
class TakenPictures(AbstractPictures):
    """The pictures at these places of others, in this order."""

    whole: AbstractPictures
    places: Int[np.ndarray, "taken"]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, position: int) -> str:
        """As it is called among all."""
        return self.whole.name(int(self.places[position]))

    def content(self, position: int) -> bytes:
        """As it is among all."""
        return self.whole.content(int(self.places[position]))

    def read(self, position: int, decoding: Decoding) -> Image.Image:
        """The picture."""
        return self.whole.read(int(self.places[position]), decoding)
