"""Output files: found unwritable before the work begins; written beside and then renamed, so none is half there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from esdnet.errors import UserError


def check_writable(option: str, path: Path, is_folder: bool) -> None:
    """UserError unless `path` can be written; a folder is made where there is none."""
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
    """The whole text, or the file as it was before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: could not be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a line break at its end."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
