"""OpenMP, as torch loads it in a command, waits as it was told."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from esdnet.command.threads import POLICY

COMMAND = "from esdnet.command.errors import report_user_errors; report_user_errors(lambda: __import__('torch') and 0)"


def spins(given: dict[str, str]) -> int:
    """How often a thread of GNU's OpenMP looks before it sleeps."""
    environment = {key: value for key, value in os.environ.items() if not re.match("G?OMP_", key)}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **given}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if found is None:
        pytest.skip("torch is built with another OpenMP than GNU's")
    return int(found[1])


def test_threads_of_a_command_sleep():
    assert spins({}) == 0


def test_whoever_sets_a_policy_keeps_it():
    assert spins({POLICY: "ACTIVE"}) > 0
