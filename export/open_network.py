"""Any network of a user's as a layer graph: a .nir or .net file, an export of this project, a snnTorch module in a .py.

In: what --network names, and the input that it will be given. Out: a Network. Heavy imports wait until one is opened.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esdnet.command.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.network import Network

KINDS = "a .nir or .net file, a folder that to_nir.py wrote, or FILE.py:FUNCTION"


@dataclass(frozen=True)
class Reading:
    """What a file leaves open. `dt`: seconds per step, `reset`, `semantics`: of .nir files (docs/semantics.md).
    `reset_interval`, `reset_offset`: of .net files, as netx.Network takes them."""

    dt: float = 1e-4
    reset: Literal["v_reset", "subtract"] = "v_reset"
    semantics: str = "nir"
    reset_interval: int | None = None
    reset_offset: int = 0


def open_network(source: str, frames: NDArray[Any], input_kind: str, reading: Reading) -> Network:
    """The network that `source` names, for an input (T, *shape) of `input_kind`, 'analog' or 'spike'.

    UserError for what is not there or cannot be expressed.
    """
    file, colon, function = source.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_python(Path(file), function, frames, input_kind)
    path = Path(source)
    if not path.exists():
        raise UserError(f"--network {source}: not found; expected {KINDS}")
    from export.targets.nir.read import FORMAT, read_network

    if FORMAT.is_export(path):
        return read_network(path)
    if path.suffix == ".net":
        from export.readers.netx import read_netx

        if input_kind != "spike":
            raise UserError(f"--network {source}: takes spikes, what its input layer sends; add --input-kind spike")
        return read_netx(path, reading.reset_interval, reading.reset_offset)
    if path.suffix != ".nir":
        raise UserError(f"--network {source}: not a network that can be read; expected {KINDS}")
    from export.readers.nir import read_nir

    return read_nir(path, reading.dt, reading.reset, reading.semantics, input_kind)  # type: ignore[arg-type]


def open_with_input(
    source: str, path: Path, input_kind: str | None, reading: Reading | None = None
) -> tuple[Network, NDArray[Any]]:
    """The network, and the array of a .npy file that it takes; `input_kind` None: spikes if the array is boolean."""
    frames = load_frames(path)
    from export.graph.frames import check_sequence

    kind = input_kind or ("spike" if frames.dtype == bool else "analog")
    network = open_network(source, frames, kind, reading or Reading())
    check_sequence(network, frames)
    return network, frames


def own_name(source: str) -> str:
    """What an export of it is called: that of the function, or of the file."""
    return Path(source.rpartition(":")[2] if ".py:" in source else source).stem


def load_frames(path: Path) -> NDArray[Any]:
    """The array of a .npy file; UserError in one line for anything else."""
    import numpy as np

    if not path.is_file():
        raise UserError(f"--input {path}: not found")
    try:
        frames = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"--input {path}: not an array that numpy.save wrote ({str(error).splitlines()[0]})") from error
    if not isinstance(frames, np.ndarray):
        raise UserError(f"--input {path}: several arrays, expected one, as numpy.save writes it")
    return frames


def _from_python(path: Path, function: str, frames: NDArray[Any], input_kind: str) -> Network:
    """The snnTorch module that a function of a file makes: a module, or a module and a function that runs it."""
    from export.readers.snntorch import read_snntorch

    module, run = _made(*_key(path), function)
    return read_snntorch(module, frames, run, input_kind, f"{path.stem}.{function}")  # type: ignore[arg-type]


def spikes_of_source(source: str, frames: NDArray[Any]) -> dict[str, NDArray[np.bool_]] | None:
    """What the module that `source` names fires by itself, run once more: (T, *shape) by neuron. None for files."""
    file, colon, function = source.rpartition(":")
    if not (colon and file.endswith(".py")):
        return None
    from export.readers.snntorch import recorded_spikes

    return recorded_spikes(*_made(*_key(Path(file)), function), frames)


def _key(path: Path) -> tuple[Path, int]:
    """The file, and when it was written: another one is read anew."""
    if not path.is_file():
        raise UserError(f"--network {path}: not found")
    return path.resolve(), path.stat().st_mtime_ns


@lru_cache(maxsize=1)
def _made(path: Path, written: int, function: str) -> tuple[Any, Any]:
    """The module, and the function that runs it or None; made once, since its weights may be drawn anew each time."""
    from torch import nn

    with _users_code(f"--network {path}"):
        made = getattr(_import(path), function, None)
        if not callable(made):
            raise UserError(f"--network {path}:{function}: the file has no function {function!r}")
        found = made()
    module, run = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(module, nn.Module) or not (run is None or callable(run)):
        raise UserError(
            f"--network {path}:{function}: returned {type(found).__name__}, expected a torch module, or a pair of a"
            " module and a function run(module, frames)"
        )
    return module, run


def _import(path: Path) -> Any:
    """The file as a module; what it imports beside it is found."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--network {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    """An error in a file of the user's, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever their code raises
        raise UserError(f"{what}: {type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}") from error
