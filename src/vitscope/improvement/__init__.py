"""Better models: what a diagnosis suggests is tried, chosen on validation images, and proven on test images."""
