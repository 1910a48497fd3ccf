"""Diagnostics as an interface, and the pass over images that feeds them."""
