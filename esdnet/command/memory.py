"""The memory of this process: how much it may still take, what running out of it looks like, and that it is kept.

By default glibc gives large blocks back to the system at once and gets them back page by page: a fifth of a training
step on a CPU went into that, and up to two thirds of the time that a large image takes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esdnet.command.errors import UserError

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's names for them, from glibc's malloc.h
_MIB = 1 << 20
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad allocation", "std::bad_alloc")  # torch's words for it
_CGROUP_FILES = {  # limit and use of a control group, by controller ("" is version 2), below the mount of each
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def keep_freed_memory() -> None:
    """Let this process keep what it frees. It changes nothing but speed; without glibc (not Linux, or musl) nothing."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1024 * _MIB)
        mallopt(_TRIM_THRESHOLD, 2047 * _MIB)
        mallopt(_TOP_PAD, 64 * _MIB)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take, None where the system does not tell (it is no Linux).

    The least of: what the machine has available, what the limits of this process leave (`ulimit -v`, `ulimit -d`), and
    what the limits of its control groups leave (containers, systemd), page cache that can be dropped not counted as
    used. `root` is where /proc and /sys are looked for.
    """
    status = _numbers(root / "proc/self/status")
    free = [kib << 10 for name, kib in _numbers(root / "proc/meminfo").items() if name == "MemAvailable"]
    if resource is not None and status:
        for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            soft = resource.getrlimit(limit)[0]
            if soft != resource.RLIM_INFINITY:
                free.append(soft - (status[used] << 10))
    free += _free_in_cgroups(root)
    return max(0, min(free)) if free else None


def resident_memory() -> int:
    """Bytes that this process has in memory, 0 where the system does not tell."""
    return _numbers(Path("/proc/self/status")).get("VmRSS", 0) << 10


def _free_in_cgroups(root: Path) -> Iterator[int]:
    """What each control group above this process leaves of its limit; those that have none are left out."""
    for line in _lines(root / "proc/self/cgroup"):  # "0::/a/b", version 2, or "4:memory:/a/b"
        _, controllers, path = line.split(":", 2)
        for controller in _CGROUP_FILES.keys() & controllers.split(","):
            limit, usage, inactive = _CGROUP_FILES[controller]
            mount = root / "sys/fs/cgroup" / controller
            group = mount / path.strip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(mount) and (folder / usage).is_file():
                    cache = _numbers(folder / "memory.stat").get(inactive, 0)
                    allowed, used = (_lines(folder / name)[0] for name in (limit, usage))
                    if allowed != "max":
                        yield int(allowed) - max(0, int(used) - cache)


def _numbers(path: Path) -> dict[str, int]:
    """Lines "name: number ..." or "name number" of a system file; no lines where there is no such file."""
    pairs = (line.replace(":", " ").split()[:2] for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


@contextmanager
def out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """While open, running out of memory, the machine's or a GPU's, is a UserError that names `what` and a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise UserError(f"{what}: not enough memory; {remedy}") from error
        raise


def in_words(size: float) -> str:
    """Bytes for reading: MB below a gigabyte (10^9 bytes), GB above."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
