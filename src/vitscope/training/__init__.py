"""Training: a model from a recipe and images, the same weights whenever it was interrupted."""
