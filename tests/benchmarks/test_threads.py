"""Commands are run in every setting, beside processes that end with it."""

from __future__ import annotations

import signal

import pytest

from benchmarks import threads


def test_a_row_for_each_setting(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(threads, "timed", lambda words, setting: (seen.append(setting), (2.0, 3.0))[1])
    assert threads.main(["--rounds", "2"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if " 2.0 | 3.0 |" in line]
    assert len(rows) == len(threads.COMMANDS) * len(threads.SETTINGS)
    assert seen == [setting for _ in threads.COMMANDS for _ in range(2) for setting in threads.SETTINGS.values()]


def test_other_processes_compute_and_end(monkeypatch):
    started = []
    popen = threads.subprocess.Popen

    def record(*words, **options):
        started.append(popen(*words, **options))
        return started[-1]

    monkeypatch.setattr(threads.subprocess, "Popen", record)
    with threads.others(2):
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [-signal.SIGKILL, -signal.SIGKILL]


@pytest.mark.slow
def test_a_command_is_timed():
    wall, cpu = threads.timed(threads.COMMANDS["derain"], threads.SETTINGS["one thread"])
    assert 0 < cpu < 2 * wall
