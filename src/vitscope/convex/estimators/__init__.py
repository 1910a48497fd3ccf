"""Convex heads as scikit-learn estimators, one file for each block."""
