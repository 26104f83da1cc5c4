"""The layer graph in integers."""
