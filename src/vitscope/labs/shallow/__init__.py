"""The shallow vision transformer of Li, Wang, Liu and Chen (ICLR 2023): its tokens, its model, its theorems."""
