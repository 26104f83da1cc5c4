"""Outputs, files or folders, that appear whole or not at all: written beside under a temporary name, then renamed.

Also the checks, before any work begins, that an output can be written at all, and replaces nothing but its like.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import CannotWrite, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, for a file or a folder, which takes the place of `path`.

    It does so when the block ends well; else it is removed and `path` left as it was. An OSError inside (full disk, no
    permission) becomes a CannotWrite that names `path`.
    """
    target = Path(path).absolute()
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        _publish(beside, target)
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            _remove(beside)


def _publish(beside: Path, target: Path) -> None:
    """Give what is complete its name. A file replaces a file at once; an earlier folder goes away only after that.

    A file never replaces a folder, nor a folder a file: os.replace refuses.
    """
    if not (target.is_dir() and beside.is_dir()):
        os.replace(beside, target)
        return
    old = beside.with_suffix(".old")
    os.replace(target, old)
    try:
        os.replace(beside, target)
    except OSError:
        os.replace(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_replaceable(path: Path, what: str, is_like: Callable[[Path], bool]) -> None:
    """UserError unless -o `path` is free or holds an earlier `what` (`is_like` tells), in a folder that can be written.

    For outputs that may be folders: only what the same command wrote is ever taken away.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{path}: the folder that it goes to does not exist; create it or choose another -o")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{path}: the folder that it goes to is not writable; choose another -o")
    if path.exists() and not is_like(path):
        raise UserError(f"{path}: exists and is not {what} of this program; remove it or choose another -o")


def check_writable(option: str, path: Path) -> None:
    """UserError that names `option` unless the file `path` can be written."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():  # /dev/null and the like would be replaced
        raise UserError(f"{option} {path}: is no regular file, expected the name of a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: the folder {path.parent} is not writable")


def check_folder(option: str, path: Path) -> None:
    """UserError that names `option` unless `path` is a folder to write to, or can be made one; nothing is made."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"{option} {path}: the folder cannot be made: {there} is a file")
    if not os.access(there, os.W_OK):
        raise UserError(f"{option} {path}: the folder {there} is not writable")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{path}: the folder cannot be made: {error.strerror}") from error


def check_outputs(files: Mapping[str, Path | None], inputs: Iterable[Path], others: Iterable[Path] = ()) -> None:
    """UserError unless each file that a command writes, by option, can be written and takes no other's place.

    `inputs` are what the command reads, `others` what it writes besides.
    """
    taken = {path.resolve(): "another output" for path in others} | {path.resolve(): "an input" for path in inputs}
    for option, path in files.items():
        if path is not None:
            check_writable(option, path)
            if path.resolve() in taken:
                raise UserError(f"{option} {path}: would overwrite {taken[path.resolve()]}; give it another name")
            taken[path.resolve()] = f"what {option} writes"


def say_target(source: Path, target: Path) -> None:
    """One line on stderr, before the work: what is written, and where in full."""
    print(f"{source.name}: its export will be {target.resolve()}", file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """The whole text in UTF-8, or the file as it was before."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An array as numpy.save writes it."""
    import numpy as np

    with written_beside(path) as beside, open(beside, "wb") as file:
        np.save(file, array)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a line break at its end; NaN and infinities are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
