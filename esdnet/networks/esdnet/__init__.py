"""ESDNet: its configuration, layers and neurons."""
