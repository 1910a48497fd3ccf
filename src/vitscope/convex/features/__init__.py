"""Token features of a frozen model, stored on disk: computed once for a model and images, read as a memory map."""

from vitscope.convex.features.extract import extract
from vitscope.convex.features.extractor import TokenExtractor
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.convex.features.store import Features

__all__ = ["Features", "TokenExtractor", "TokenRecipe", "extract"]
