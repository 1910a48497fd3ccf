"""Labelled results: axes, units, errors of the mean, claims, on xarray."""
