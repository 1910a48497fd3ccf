"""Images to examine a model on: any usual source, opened lazily, with labels that mean what the user expects."""

from vitscope.data.batch import Batch, Broken
from vitscope.data.decode import BrokenImage
from vitscope.data.image import Images
from vitscope.data.load import images

__all__ = ["Batch", "Broken", "BrokenImage", "Images", "images"]
