"""Where a network computes: the --device option of every command, and how exactly a GPU does."""

from __future__ import annotations

from esdnet.command.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> str:
    """'auto', 'cpu' or 'cuda' to 'cpu' or 'cuda'; UserError where cuda is asked for and torch finds none."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def choose_exact_device(name: str) -> str:
    """`choose_device` for results that are compared: from now on, in this process, float32 is float32 on a GPU too.

    No TF32, whose products keep 10 bits of a factor's fraction and which torch allows for convolutions by default; and
    no convolution algorithm whose sums come out differently from run to run.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return choose_device(name)
