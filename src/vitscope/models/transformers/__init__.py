"""Adapters of Hugging Face transformers models, one file a family."""
