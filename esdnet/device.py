"""Where a network computes: the --device option of every command."""

from __future__ import annotations

from esdnet.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> str:
    """'auto', 'cpu' or 'cuda' to 'cpu' or 'cuda'; UserError where cuda is asked for and torch finds none."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
