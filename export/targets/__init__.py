"""What layer graphs are written for: a room for each target, with its check."""
