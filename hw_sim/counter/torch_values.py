"""What is known of torch's tensors, storage by storage: views share it, and a write into a part joins what was there.

A storage that nobody spoke of holds numbers: weights, analog inputs, states of an earlier run, results of arithmetic.
"""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from hw_sim.counter.values import NUMBERS, Value, joined

PURGE_STORAGES, PURGE_ELEMENTS = 1024, 1 << 25  # so many may be known before the dead ones are let go


def storage_of(tensor: Tensor) -> int | None:
    """Where a tensor's elements lie; None for a sparse one."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:
        return None


class TensorValues:
    """Values by storage. A weak reference keeps a storage's address from being given to another."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Value]] = {}
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
        found = self._known.get(key)
        return NUMBERS if found is None else found[1]

    def write(self, tensor: Tensor, value: Value, fresh: bool = False) -> None:
        """A tensor was written. fresh: it is new, nothing was there before."""
        if fresh and value is NUMBERS:
            return
        key = storage_of(tensor)
        if key is None:
            return
        storage, found = tensor.untyped_storage(), self._known.get(key)
        if not fresh and tensor.numel() * tensor.element_size() < storage.nbytes():
            value = joined([NUMBERS if found is None else found[1], value])
        if value is NUMBERS:
            self._known.pop(key, None)
        elif found is not None:
            self._known[key] = (found[0], value)
        else:
            self._known[key] = (StorageWeakRef(storage), value)  # type: ignore[no-untyped-call]
            self._elements += tensor.numel()
            if len(self._known) > self._purge_at or self._elements > PURGE_ELEMENTS:
                self._purge()

    def _purge(self) -> None:
        alive = {key: entry for key, entry in self._known.items() if not entry[0].expired()}  # type: ignore[no-untyped-call]
        self._known, self._elements = alive, 0
        self._purge_at = max(PURGE_STORAGES, 2 * len(alive))
