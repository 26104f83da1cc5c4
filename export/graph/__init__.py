"""The layer graph: its nodes, what they mean, what is counted of them, and when two executors agree."""
