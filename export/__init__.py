"""A trained network as data: lowering to a typed layer graph, and the formats that are written from it."""
