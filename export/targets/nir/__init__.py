"""NIR, the exchange format of neuromorphic tools."""
