"""The pass over images: what diagnostics read of each batch, and how their states are folded."""
