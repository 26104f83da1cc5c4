"""The checkpoints that come with the package, found by name wherever a checkpoint is asked for."""

from __future__ import annotations

from pathlib import Path

from esdnet.command.errors import UserError

FOLDER = Path(__file__).parents[1] / "checkpoints"
DEFAULT = "small_released"


def find_checkpoint(given: str | Path) -> Path:
    """The file of that name, or else the bundled checkpoint of that name, with .pt or without.

    UserError, which lists the bundled ones, if there is neither.
    """
    path = Path(given)
    bundled = {each.stem: each for each in sorted(FOLDER.glob("*.pt"))}
    if not path.is_file() and path.name == str(path) and path.name.removesuffix(".pt") in bundled:
        return bundled[path.name.removesuffix(".pt")]
    if not path.is_file():
        found = "a directory" if path.is_dir() else "nothing"
        names = ", ".join(bundled)
        raise UserError(f"{given}: expected a checkpoint file, found {found}; bundled ones, by name: {names}")
    return path


def name_elsewhere(path: Path) -> str:
    """What `find_checkpoint` finds it by in another process or on another machine: a bundled one by its name."""
    return path.stem if path.parent == FOLDER else str(path.resolve())


def checkpoint_label(path: Path) -> str:
    """A checkpoint's name for reports: the path, or the bundled one's name."""
    return f"{path.name} (bundled)" if path.parent == FOLDER else str(path)
