"""The layer graph as hardware runs it: simulators, exact operation counts and their price; `count` for any module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hw_sim.counter.torch_counter import count

__all__ = ["count"]


def __getattr__(name: str) -> Any:
    """`hw_sim.count`, and torch with it, when it is first asked for."""
    if name == "count":
        from hw_sim.counter.torch_counter import count

        return count
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
