"""A CSV file that grows by a row for each thing that is done, and that a later command goes on with.

In: rows as dictionaries of numbers and words, whatever they are of, and what they were made with. Out: the file, whole
after every row, whoever is killed when; the rows that it holds already.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from esdnet.command.errors import CannotWrite, UserError
from esdnet.command.writing import write_text

Row = dict[str, Any]


def add_table_flags(parser: argparse.ArgumentParser, what: str) -> None:
    """--table, and --skip-existing to go on with it."""
    parser.add_argument(
        "--table", type=Path, metavar="FILE.csv", help=f"write a row for each {what} as soon as it is done"
    )


def check_table(path: Path | None, go_on: bool) -> None:
    """UserError for a table that is there and shall not be gone on with, or that is no table by its name."""
    if path is None:
        return
    if path.suffix.lower() != ".csv":
        raise UserError(f"--table {path}: is written as CSV, expected a name that ends in .csv")
    if path.exists() and path.stat().st_size and not go_on:
        raise UserError(f"--table {path}: is there already; --skip-existing goes on with it, or give another name")


class Table:
    """The file at `path`: a row for each `key`, and beside it in every row `made_with`, which must not change.

    Opened, it holds whole rows only; of a row that was being written when its command was killed nothing is left.
    """

    def __init__(self, path: Path, key: str, made_with: Mapping[str, Any]) -> None:
        self.path, self.key, self.made_with = path, key, dict(made_with)
        self.rows: dict[str, Row] = {}
        self._columns: list[str] = []
        if path.exists() and path.stat().st_size:
            self._read()

    def add(self, row: Row) -> None:
        """Append a row; it is on the disk when this returns. CannotWrite if it cannot be."""
        row = row | self.made_with
        text = io.StringIO()
        if not self._columns:
            self._columns = list(row)
            csv.writer(text, lineterminator="\n").writerow(self._columns)
        csv.DictWriter(text, self._columns, lineterminator="\n").writerow(row)
        try:
            with self.path.open("ab") as file:
                file.write(text.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CannotWrite(f"{self.path}: cannot be written: {error.strerror}") from error
        self.rows[str(row[self.key])] = row

    def keep(self, wanted: Iterable[str]) -> None:
        """Only the rows of these keys, in this order."""
        rows = [self.rows[key] for key in wanted if key in self.rows]
        if rows != list(self.rows.values()):
            text = io.StringIO()
            writer = csv.DictWriter(text, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(self.path, text.getvalue())
            self.rows = {str(row[self.key]): row for row in rows}

    def without_settings(self) -> list[Row]:
        """The rows as they were given, numbers as numbers."""
        return [
            {name: value for name, value in row.items() if name not in self.made_with} for row in self.rows.values()
        ]

    def _read(self) -> None:
        try:
            text = self.path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--table {self.path}: cannot be read as a table: {error}") from error
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            os.truncate(self.path, len(whole.encode()))
        reader = csv.DictReader(io.StringIO(whole))
        self._columns = list(reader.fieldnames or [])
        missing = [name for name in (self.key, *self.made_with) if name not in self._columns]
        if self._columns and missing:
            raise UserError(
                f"--table {self.path}: has no column {missing[0]}: no table of this command; give another name"
            )
        for row in reader:
            self._check(row)
            self.rows[row[self.key]] = {name: text if name == self.key else _value(text) for name, text in row.items()}
        if self.rows:
            print(f"{self.path}: {len(self.rows)} rows are there already", file=sys.stderr)

    def _check(self, row: Mapping[str, str]) -> None:
        for name, value in self.made_with.items():
            if row[name] != _text(value):
                before, now = (text or "none" for text in (row[name], _text(value)))
                raise UserError(
                    f"--skip-existing: {self.path} was made with {name} {before}, found {now}; give another --table"
                )


def _text(value: Any) -> str:
    """A value as csv writes it."""
    return "" if value is None else str(value)


def _value(text: str) -> Any:
    """What csv wrote as that text: a number if it is one, None for nothing."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None
