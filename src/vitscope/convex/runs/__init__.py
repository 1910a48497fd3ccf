"""Runs of convex heads: one fit, a regularisation path, kinds of head side by side."""
