"""A table that grows: whole after every row, gone on with, never with other settings."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from esdnet.command.errors import CannotWrite, UserError
from esdnet.command.table import Table, check_table

ROOT = Path(__file__).parents[3]
MADE = {"network": "small", "tile": None}


def open_table(tmp_path: Path, **made_with) -> Table:
    return Table(tmp_path / "t.csv", "name", MADE | made_with)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        {"name": "001", "spikes": 2**60, "psnr": 0.1 + 0.2, "note": 'a "quoted", one'},
        {"name": "1e5", "spikes": 0, "psnr": math.inf, "note": None},
        {"name": "ä\nb", "spikes": -1, "psnr": 1e-300, "note": "x"},
    ]
    table = open_table(tmp_path)
    for row in rows:
        table.add(row)
    again = open_table(tmp_path)
    assert list(again.rows) == ["001", "1e5", "ä\nb"]
    assert again.without_settings() == table.without_settings() == rows
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert [row["network"] for row in csv.DictReader(file)] == ["small"] * 3


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_row_that_was_not_whole_is_gone(cut: int, tmp_path: Path) -> None:
    table = open_table(tmp_path)
    table.add({"name": "a", "spikes": 1})
    whole = table.path.read_bytes()
    table.add({"name": "b", "spikes": 2})
    table.path.write_bytes(whole + table.path.read_bytes()[len(whole) :][:cut].rstrip(b"\n"))
    again = open_table(tmp_path)
    assert list(again.rows) == ["a"]
    assert table.path.read_bytes() == whole
    again.add({"name": "b", "spikes": 2})
    assert open_table(tmp_path).without_settings() == [{"name": "a", "spikes": 1}, {"name": "b", "spikes": 2}]


def test_not_even_the_head_was_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,spi")
    table = open_table(tmp_path)
    assert table.rows == {}
    table.add({"name": "a", "spikes": 1})
    assert table.path.read_text() == "name,spikes,network,tile\na,1,small,\n"


def test_only_those_that_are_wanted_are_kept(tmp_path: Path) -> None:
    table = open_table(tmp_path)
    for name in "abc":
        table.add({"name": name, "spikes": ord(name)})
    table.keep(["c", "x", "a"])
    assert list(table.rows) == list(open_table(tmp_path).rows) == ["c", "a"]
    table.add({"name": "b", "spikes": 98})
    assert list(open_table(tmp_path).rows) == ["c", "a", "b"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    open_table(tmp_path).add({"name": "a"})
    with pytest.raises(UserError, match=r"t\.csv was made with tile none, found 64; give another --table"):
        open_table(tmp_path, tile=64)
    (tmp_path / "t.csv").write_text("name,spikes\na,1\n")
    with pytest.raises(UserError, match=r"t\.csv: has no column network: no table of this command"):
        open_table(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"t\.csv: cannot be read as a table"):
        open_table(tmp_path)


def test_what_the_flags_may_be(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    check_table(None, False)
    check_table(path, False)
    path.touch()
    check_table(path, False)
    path.write_text("x")
    check_table(path, True)
    with pytest.raises(UserError, match=r"--table .*t\.csv: is there already; --skip-existing goes on with it"):
        check_table(path, False)
    with pytest.raises(UserError, match=r"t\.parquet: is written as CSV"):
        check_table(tmp_path / "t.parquet", False)


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    table = Table(tmp_path / "no" / "t.csv", "name", MADE)
    with pytest.raises(CannotWrite, match=r"t\.csv: cannot be written: No such file"):
        table.add({"name": "a"})


KILLED = """
import sys
from pathlib import Path
from esdnet.command.table import Table

table = Table(Path(sys.argv[1]), "name", {})
for number in range(len(table.rows), 10**6):
    table.add({"name": f"image{number}", "square": number**2, "long": "x" * 5000})
    if number % 100 == 0:
        print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_killed_at_any_moment_no_row_is_lost_or_torn(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:
            assert process.stdout is not None
            said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
        rows = Table(path, "name", {}).without_settings()
        assert len(rows) > said
        assert [(row["name"], row["square"]) for row in rows] == [
            (f"image{number}", number**2) for number in range(len(rows))
        ]
