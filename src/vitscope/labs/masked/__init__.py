"""Masked pretraining of one attention layer on clustered patches: what it learns, in which order and how fast."""
