"""Exports that are folders: a manifest that says what they are, and hashes of every file in them.

In: a folder. Out: its manifest, checked; a UserError in one line for anything that is missing, foreign, damaged, edited
or of another version.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from esdnet.command.errors import UserError
from export.graph.store import Record

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FolderFormat:
    """One kind of export: its name and version in manifests, what it is called, and the command that writes it."""

    name: str
    version: int
    title: str
    command: str

    @property
    def again(self) -> str:
        """The remedy."""
        return f"write it again with {self.command}"

    def is_export(self, path: Path) -> bool:
        """True if something of this format is there, in whatever state: what an export may replace."""
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(manifest, dict) and manifest.get("format") == self.name

    def read_manifest(self, path: Path) -> Record:
        """The manifest of a folder, after every file has been checked against it."""
        if not path.is_dir():
            found = "a file" if path.is_file() else "nothing there"
            raise UserError(f"{path}: {found}; expected the folder that {self.command} writes")
        try:
            return self._checked(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path}: cannot be read as {self.title}: {reason}; {self.again}") from error

    def _checked(self, path: Path) -> Record:
        file = path / MANIFEST
        if not file.is_file():
            raise UserError(f"{path}: not {self.title}: {MANIFEST} is missing; {self.again}")
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != self.name:
            raise UserError(f"{file}: not the manifest of {self.title}: expected format {self.name!r}; {self.again}")
        if manifest["version"] != self.version:
            remedy = "update the program" if manifest["version"] > self.version else self.again
            raise UserError(f"{path}: format {manifest['version']}, this program reads {self.version}; {remedy}")
        if manifest.get("sha256") != manifest_digest(manifest):
            raise UserError(f"{file}: was changed after it was written (its hash differs); {self.again}")
        for name, expected in manifest["files"].items():
            if not (path / name).is_file():
                raise UserError(f"{path / name}: missing, the export is incomplete; {self.again}")
            if file_digest(path / name) != expected:
                raise UserError(
                    f"{path / name}: was changed or cut short after it was written (its hash differs); {self.again}"
                )
        return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def manifest_digest(manifest: Record) -> str:
    """SHA-256 of a manifest without its own hash."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
