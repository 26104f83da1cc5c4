"""The C library's allocator, set for training: memory that torch frees is kept for the next step.

By default glibc gives large blocks back to the system at once and gets them back page by page: a fifth of a training
step on a CPU went into that.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's names for them, from glibc's malloc.h
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep what it frees. It changes nothing but speed; without glibc (not Linux, or musl) nothing."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1024 * _MIB)
        mallopt(_TRIM_THRESHOLD, 2047 * _MIB)
        mallopt(_TOP_PAD, 64 * _MIB)
