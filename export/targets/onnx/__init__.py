"""ONNX, for machines without spikes."""
