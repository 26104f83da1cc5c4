"""How the threads of torch wait for each other: asleep.

OpenMP's own choice is to spin, which costs nothing while every thread has a core for itself. On cores that others use
too it takes their time and one's own: docs/benchmarks.md.
"""

from __future__ import annotations

import os

POLICY = "OMP_WAIT_POLICY"


def wait_asleep() -> None:
    """For a command, before torch is loaded: OpenMP reads it then, once. Whoever has set a policy keeps it."""
    os.environ.setdefault(POLICY, "PASSIVE")
