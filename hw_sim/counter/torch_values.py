"""What is known of torch's tensors, storage by storage: views share it, and a write into a part joins what was there.

A storage that nobody spoke of holds numbers: weights, analog inputs, states of an earlier run, results of arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, UntypedStorage

from hw_sim.counter.values import NUMBERS, Value, joined

PURGE_STORAGES, PURGE_ELEMENTS = 1024, 1 << 25  # so many may be known before the dead ones are let go

_expired: Callable[[int], Any] = UntypedStorage._expired
_let_go: Callable[[int], None] = UntypedStorage._free_weak_ref


def storage_of(tensor: Tensor) -> int | None:
    """Where a tensor's elements lie; None for a sparse one."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:
        return None


class TensorValues:
    """Values by storage. A weak reference to each known one keeps its address from being given to another."""

    def __init__(self) -> None:
        self._known: dict[int, Value] = {}  # but for numbers
        self.read: set[int] = set()  # storages that operations have read: of weights, those that were used
        self._purge_at = PURGE_STORAGES
        self._elements = 0  # of what was noted since the last purge: comparisons are kept with it

    def of(self, tensor: Tensor) -> Value:
        """What a tensor holds that an operation reads."""
        try:
            key = tensor.untyped_storage()._cdata
        except NotImplementedError:  # sparse
            return NUMBERS
        self.read.add(key)
        return self._known.get(key, NUMBERS)

    def write(self, tensor: Tensor, value: Value, fresh: bool = False) -> None:
        """A tensor was written. fresh: it is new, nothing was there before."""
        if fresh and value is NUMBERS:
            return
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:
            return
        key = storage._cdata
        found = self._known.get(key, NUMBERS)
        if not fresh and tensor.numel() * tensor.element_size() < storage.nbytes():
            value = joined([found, value])
        if value is not NUMBERS:
            self._known[key] = value
            if found is NUMBERS:
                storage._weak_ref()
                self._elements += tensor.numel()
                if len(self._known) > self._purge_at or self._elements > PURGE_ELEMENTS:
                    self._purge()
        elif found is not NUMBERS:
            self._forget(key)

    def _forget(self, key: int) -> None:
        del self._known[key]
        _let_go(key)

    def _purge(self) -> None:
        for key in [key for key in self._known if _expired(key)]:
            self._forget(key)
        self._elements = 0
        self._purge_at = max(PURGE_STORAGES, 2 * len(self._known))

    def __del__(self) -> None:
        for key in self._known:
            _let_go(key)
