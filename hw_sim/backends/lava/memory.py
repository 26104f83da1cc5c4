"""Shared memory for Lava's messages: how much a plan needs, whether there is that much, and where it comes from.

Lava takes named segments of /dev/shm, which outlive a killed run. Here its channels live in anonymous shared mappings,
which a forked process inherits: the kernel frees them with the last process, so that nothing can be left behind.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from esdnet.command.errors import UserError
from hw_sim.backends.lava.plan import CHANNEL_SIZE, Leaf, Plan, Value
from hw_sim.backends.lava.records import STARTS_BYTES, record_size

SEMAPHORES = Path("/dev/shm")  # where the C library keeps semaphores, a page each
PAGE = mmap.PAGESIZE


class AnonymousSegment:
    """Shared memory that has no name. `buf` is what Lava's ports read and write."""

    def __init__(self, size: int) -> None:
        self.buf = memoryview(mmap.mmap(-1, size))


class AnonymousSharedMemory:
    """Takes the place of Lava's SharedMemoryManager: same methods, no manager process, no names."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """The kernel frees the mappings with the processes that hold them."""

    def create_shared_memory(self, size: int) -> AnonymousSegment:
        """A segment that every process forked from now on shares."""
        self.sizes.append(size)
        return AnonymousSegment(size)


def channel_sizes(plan: Plan) -> list[int]:
    """Bytes of every channel of a plan, as Lava will create them: messages, starts, records, management."""
    leaves = list(plan.leaves)
    dtypes = {value.name: value.dtype for leaf in leaves if isinstance(leaf, Leaf) for value in leaf.outputs}
    frames = [CHANNEL_SIZE * _nbytes(value, dtypes) for leaf in leaves for value in leaf.inputs]
    outputs = [outlet.value for outlet in plan.outputs]
    frames += [CHANNEL_SIZE * _nbytes(value, dtypes) for value in outputs]
    for leaf in leaves:
        if isinstance(leaf, Leaf):
            frames += [CHANNEL_SIZE * STARTS_BYTES, CHANNEL_SIZE * record_size(leaf)]
    pipes = [plan.steps * 8 * prod(value.frame_shape) for value in (plan.image, *outputs)]
    processes = len(leaves) + 1 + len(outputs)  # an injector, an extractor for each
    return frames + pipes + [CHANNEL_SIZE * 8] * (2 * processes + 2)


def _nbytes(value: Value, dtypes: dict[str, str]) -> int:
    """One message: what Lava's own processes send (the injected image, LIFReset's spikes) is float64."""
    return prod(value.frame_shape) * np.dtype(dtypes.get(value.name, "float64")).itemsize


def check_memory(plan: Plan) -> None:
    """UserError if the memory that is free, or the space for semaphores, is too small for the plan's channels."""
    sizes = channel_sizes(plan)
    needed = sum(-(-size // PAGE) * PAGE for size in sizes)
    free = min(_free_memory())
    if needed > free:
        raise UserError(
            f"Lava: the channels of {plan.image.shape[2]}x{plan.image.shape[3]} pixels need {needed / 2**20:,.0f} MiB"
            f" of shared memory, {free / 2**20:,.0f} MiB are free; use smaller tiles (--tile), or --backend simulator"
        )
    semaphores = PAGE * (2 * len(sizes) + 3 * (len(list(plan.leaves)) + 3))  # of each channel, and each process's queue
    space = os.statvfs(SEMAPHORES)
    if semaphores > space.f_bavail * space.f_frsize:
        raise UserError(
            f"Lava: its semaphores need {semaphores / 1024:.0f} KiB in {SEMAPHORES},"
            f" {space.f_bavail * space.f_frsize / 1024:.0f} KiB are free; free some or mount it larger"
            " (docker run --shm-size)"
        )


def _free_memory() -> Iterator[int]:
    """Bytes that this process may still take: of the machine, and of its control group where it has a limit."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        yield int(limit.read_text()) - int(used.read_text())
