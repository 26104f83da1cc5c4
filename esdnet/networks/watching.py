"""What modules of a network read and give while it runs, seen from outside and without a trace afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def watching(modules: Mapping[str, nn.Module], see: Callable[[str, tuple[Any, ...], Any], None]) -> Iterator[None]:
    """While open, `see(name, inputs, output)` is called after each forward of each of `modules`."""
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, inputs, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
