"""Output files that appear whole or not at all: written beside under a temporary name, then renamed.

Also the check, before any work begins, that an output can be written at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from esdnet.errors import UserError


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; when the block ends well it replaces `path`, else it is removed.

    An OSError inside (full disk, no permission) becomes a UserError that names `path`, which is left as it was.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def check_writable(option: str, path: Path, is_folder: bool = False) -> None:
    """UserError that names `option` unless `path` can be written; a folder is made where there is none."""
    try:
        if is_folder:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path}: the folder cannot be made: {error.strerror}") from error
    if not is_folder and path.is_dir():
        raise UserError(f"{option} {path}: is a folder, expected the name of a file to write")
    parent = path if is_folder else path.parent
    if not parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{option} {path}: the folder {parent} is not writable")


def write_text(path: Path, text: str) -> None:
    """The whole text in UTF-8, or the file as it was before."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a line break at its end; NaN and infinities are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
