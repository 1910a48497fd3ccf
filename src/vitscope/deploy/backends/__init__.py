"""Backends, one per file."""
