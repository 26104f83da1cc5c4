"""How much memory is free under every kind of limit, and that freed memory is kept, each in a process of its own where
a limit or the allocator is set."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from esdnet.command.errors import UserError
from esdnet.command.memory import free_memory, in_words, out_of_memory

ROOT = Path(__file__).parents[3]

PROGRAM = """
import resource
import numpy as np
from esdnet.command.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block, other = np.ones(5_000_000), np.ones(5_000_000)  # 40 MB each: beyond what glibc keeps by itself
        del block, other
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_freed_memory()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept() -> None:
    usual, kept = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert int(kept) < int(usual) / 10


# --- how much is free -------------------------------------------------------------------------------------------------


def write(root: Path, files: dict[str, str]) -> Path:
    """A made /proc and /sys."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:  8000 kB\nHugePages_Total:  0\n"}
CGROUPS = {
    "version 2": {
        "proc/self/cgroup": "0::/user/job\n",
        "sys/fs/cgroup/user/job/memory.max": "max\n",
        "sys/fs/cgroup/user/job/memory.current": "70000\n",
        "sys/fs/cgroup/user/memory.max": "1000000\n",  # of a group above
        "sys/fs/cgroup/user/memory.current": "400000\n",
        "sys/fs/cgroup/user/memory.stat": "anon 300000\ninactive_file 50000\n",
    },
    "version 1": {
        "proc/self/cgroup": "7:cpu,cpuacct:/job\n4:memory:/job\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "70000\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "400000\n",
        "sys/fs/cgroup/memory/job/memory.stat": "cache 60000\ntotal_inactive_file 50000\n",
    },
    "version 2, in a container that sees its own group as the root": {
        "proc/self/cgroup": "0::/../elsewhere\n",
        "sys/fs/cgroup/memory.max": "1000000\n",
        "sys/fs/cgroup/memory.current": "350000\n",
    },
}


def test_what_the_machine_has(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, MACHINE)) == 8000 * 1024


@pytest.mark.parametrize("version", CGROUPS)
def test_what_a_control_group_leaves(version: str, tmp_path: Path) -> None:
    """Page cache that can be dropped is no use."""
    assert free_memory(write(tmp_path, MACHINE | CGROUPS[version])) == 650_000


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/user/memory.current": "2000000\n"}
    assert free_memory(write(tmp_path, MACHINE | CGROUPS["version 2"] | files)) == 0


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


LIMITED = """
import resource
from esdnet.command.memory import free_memory

free = free_memory()
for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
    resource.setrlimit(limit, (400_000_000, 400_000_000))
    left = free_memory()
    assert 300_000_000 < left < 400_000_000 < free, (left, free)
    block = bytearray(100_000_000)
    assert abs(left - free_memory() - 100_000_000) < 2_000_000, (left, free_memory())
    del block
    resource.setrlimit(limit, (400_000_000, 400_000_000))
print("fine")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are looked up in Linux's /proc")
def test_what_the_limits_of_the_process_leave() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "fine\n", done.stderr


# --- running out of it ------------------------------------------------------------------------------------------------

EXHAUSTED = """
import resource
import torch
from esdnet.command.errors import UserError
from esdnet.command.memory import out_of_memory

size = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, size + 200_000_000))
for take in (lambda: torch.empty(10**9), lambda: bytearray(10**9), lambda: torch.ones(10**8).double()):
    try:
        with out_of_memory("x.png", "give a smaller --tile"):
            take()
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are looked up in Linux's /proc")
def test_running_out_of_memory_is_one_line_with_a_remedy() -> None:
    done = subprocess.run([sys.executable, "-c", EXHAUSTED], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["x.png: not enough memory; give a smaller --tile"] * 3


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), out_of_memory("x", "y"):
        raise RuntimeError("shapes do not match")
    with pytest.raises(UserError, match="not there"), out_of_memory("x", "y"):
        raise UserError("not there")


def test_bytes_in_words() -> None:
    assert [in_words(size) for size in (0, 64e6, 999e6, 1e9, 39.24e9)] == [
        "0 MB",
        "64 MB",
        "999 MB",
        "1.0 GB",
        "39.2 GB",
    ]
