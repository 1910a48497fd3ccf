"""Adapters of timm's models, one file a family."""
