"""What runs a layer graph: the simulator, in floats and integers, torch, Lava."""
