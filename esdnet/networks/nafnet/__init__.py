"""NAFNet, a rival without spikes: its configuration and its layers."""
