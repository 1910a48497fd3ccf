"""Adapters of torchvision models, one file a family."""
