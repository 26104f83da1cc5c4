"""Training: data, rain, losses, the loop and its log."""
