"""Commands are run in every setting, beside processes that end with it."""

from __future__ import annotations

import os

import pytest

from benchmarks import threads


def test_a_row_for_each_setting(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(threads, "timed", lambda words, setting: (seen.append(setting), (2.0, 3.0))[1])
    assert threads.main(["--rounds", "2"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if " 2.0 | 3.0 |" in line]
    assert len(rows) == len(threads.COMMANDS) * len(threads.SETTINGS)
    assert seen == [setting for _ in threads.COMMANDS for _ in range(2) for setting in threads.SETTINGS.values()]


def test_other_processes_end():
    with threads.others(1):
        before = os.times()
    after = os.times()
    assert after.children_user >= before.children_user  # they were waited for


@pytest.mark.slow
def test_a_command_is_timed():
    wall, cpu = threads.timed(threads.COMMANDS["derain"], threads.SETTINGS["one thread"])
    assert 0 < cpu < 2 * wall
