"""Counting whatever runs, as it runs: any torch module, any ONNX model. No graph; the rules of docs/counting.md."""
