"""`export.read` and the writers `export.to_nir`, `to_onnx` and `to_lava_dl`: what the commands do, for networks in
memory.

In: a torch module, a file, or a layer graph. Out: a layer graph; files that were run before they appeared. The writers
return what their commands print.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from esdnet.command.command_line import require_extra
from esdnet.command.errors import UserError
from esdnet.command.writing import check_outputs, check_replaceable
from esdnet.networks.architectures import is_network
from esdnet.networks.esdnet.model import ESDNet
from export.graph.agreement import FloatPrecision
from export.graph.frames import check_sequence
from export.graph.network import Network
from export.open_network import Reading, open_network

InputKind = Literal["analog", "spike"]


def read(
    source: str | Path | nn.Module,
    frames: NDArray[Any] | None = None,
    *,
    input_kind: InputKind | None = None,
    dt: float = 1e-4,
    reset: Literal["v_reset", "subtract"] = "v_reset",
    semantics: str = "nir",
    reset_interval: int | None = None,
    reset_offset: int = 0,
) -> Network:
    """The layer graph of a network.

    source: a snnTorch module; a network that `esdnet.load` returned; or what `--network` of the commands names: a .nir
        or .net file, a folder that `to_nir` wrote, "FILE.py:FUNCTION".
    frames: an input, (T, *shape), or one frame (*shape,) for a module that shows it to itself at every step. A snnTorch
        module is run on it once, in float64, and the graph must fire the same spikes; files do without.
    input_kind: "spike" (0 and 1) or "analog" (numbers); None: spikes if `frames` is bool, and for a .net.
    dt (seconds a step), reset, semantics: of .nir files, what they leave open (docs/semantics.md).
    reset_interval, reset_offset: of .net files, in steps, as Lava-DL's netx.Network takes them.

    UserError, in one line, names what is not there or what cannot be expressed: node, found, expected.

    >>> import export, numpy as np, snntorch
    >>> from torch import nn
    >>> once = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    >>> net = nn.Sequential(nn.Linear(8, 4), snntorch.Leaky(beta=0.5, threshold=0.1, **once))
    >>> x = np.random.default_rng(0).random((20, 8)) < 0.5
    >>> [node.kind for node in export.read(net, x).nodes]
    ['input', 'linear', 'leaky', 'output']
    """
    _check_frames("read", frames)
    _check_choice("read", "input_kind", input_kind, (None, *get_args(InputKind)))
    if isinstance(source, nn.Module):
        return _of_module(source, frames, input_kind)
    if not isinstance(source, (str, Path)):
        raise UserError(f"read: found a {_kind_of(source)}, expected a torch module, a file, or FILE.py:FUNCTION")
    is_net = Path(source).suffix == ".net"
    if frames is None and str(source).rpartition(":")[0].endswith(".py"):
        raise UserError(f"read: {source} is run once to be read; give frames, an array (T, *shape)")
    kind = input_kind or ("spike" if is_net or (frames is not None and frames.dtype == bool) else "analog")
    given = np.empty(0) if frames is None else frames
    return open_network(str(source), given, kind, Reading(dt, reset, semantics, reset_interval, reset_offset))


def _of_module(module: nn.Module, frames: NDArray[Any] | None, input_kind: InputKind | None) -> Network:
    if is_network(module):
        from export.readers.architectures import lower

        return lower(module, type(module).__name__)
    from export.readers.snntorch import read_snntorch

    if frames is None:
        raise UserError(f"read: a {type(module).__name__} is run once to be read; give frames, an array (T, *shape)")
    return read_snntorch(module, frames, None, input_kind, type(module).__name__)


def to_nir(
    network: Network | nn.Module, path: str | Path, frames: NDArray[Any] | None = None, *,
    input_size: tuple[int, int] = (64, 64),
) -> str:  # fmt: skip
    """Write a network as NIR.

    network: an ESDNet of `esdnet.load`: `path` becomes a folder of stock graphs with a manifest, for images of
        `input_size`, (height, width), multiples of 4; each layer is held against torch in a fresh interpreter. Or any
        layer graph, or a snnTorch module: one stock file, read back and run on `frames`, (T, *shape), where every
        neuron must fire the same spikes.

    Returns what was found, as text. UserError for what NIR cannot hold exactly; CheckFailed, and nothing is written,
    where what was written computes something else.

    >>> import export, numpy as np, snntorch, tempfile
    >>> from torch import nn
    >>> once = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    >>> net = nn.Sequential(nn.Linear(8, 4), snntorch.Leaky(beta=0.5, threshold=0.1, **once))
    >>> x = np.random.default_rng(0).random((20, 8)) < 0.5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(export.to_nir(net, folder + "/net.nir", x))  # doctest: +ELLIPSIS
    wrote ...net.nir: 4 nodes; read back, 0 of ... spikes differ in 20 steps
    """
    from export.targets.nir.export import checked_network, write_model, write_network

    target, lines = Path(path), list[str]()
    _check_size("to_nir", input_size)
    if _is_ours("to_nir", network, frames):
        from export.targets.nir.read import FORMAT

        if not isinstance(network, ESDNet):
            raise UserError(f"to_nir: found a {type(network).__name__}, expected a network of neurons, an ESDNet")
        check_replaceable(target, "a NIR export", FORMAT.is_export)
        write_model(network, checked_network(network, *input_size), input_size, target, lines.append)
    else:
        check_outputs({"to_nir": target}, [])
        write_network(*_graph("to_nir", network, frames), target, lines.append)
    return "\n".join(lines)


def to_onnx(
    network: Network | nn.Module, path: str | Path, frames: NDArray[Any] | None = None, *,
    precision: FloatPrecision = "float32",
) -> str:  # fmt: skip
    """Write a network as one ONNX file that ONNX Runtime has run.

    network: what `esdnet.load` returned: for images of any size, held against torch. Or any layer graph, or a snnTorch
        module: one time step, states in and out, run on `frames`, (T, *shape).
    precision: "float64" is for exact comparison: no spike may differ. In "float32" their number is reported.

    Returns what was found, as text; UserError and CheckFailed as `to_nir`. Needs the extra `onnx`.
    """
    require_extra("onnx", "the ONNX export")
    _check_choice("to_onnx", "precision", precision, get_args(FloatPrecision))
    from export.targets.onnx.export import check_precision, write_model, write_network

    target, lines = Path(path), list[str]()
    check_outputs({"to_onnx": target}, [])
    if _is_ours("to_onnx", network, frames):
        check_precision(network, type(network).__name__, precision)
        write_model(network, target.stem, precision, target, lines.append)
    else:
        graph, frames = _graph("to_onnx", network, frames)
        write_network(graph, frames, precision, target, lines.append)
    return "\n".join(lines)


def to_lava_dl(
    network: Network | nn.Module, path: str | Path, frames: NDArray[Any] | None = None, *,
    input_size: tuple[int, int] = (64, 64), calibration: str | Path | None = None,
) -> str:  # fmt: skip
    """Write a network in Loihi's integers, as netx files that Lava-DL's own loader has run.

    network: an ESDNet of `esdnet.load`: `path` becomes a folder with a file for each segment of spikes, for images of
        `input_size`, (height, width); `calibration` is a folder of rainy images that set the scales (None: the image
        that ships). Or a chain of layers with spikes, as a layer graph or a snnTorch module: one file, run on `frames`,
        spikes (T, *shape).

    Returns what was found, as text; UserError and CheckFailed as `to_nir`. Needs the extra `lava`, on Python 3.10.
    """
    from export.targets.loihi.check import check_available
    from export.targets.loihi.export import Check, write_model, write_network

    check_available()
    target, lines = Path(path), list[str]()
    _check_size("to_lava_dl", input_size)
    if _is_ours("to_lava_dl", network, frames):
        from export.targets.loihi.folder import FORMAT

        if not isinstance(network, ESDNet):
            raise UserError(f"to_lava_dl: found a {type(network).__name__}, expected a network of neurons, an ESDNet")
        check_replaceable(target, "a Lava-DL export", FORMAT.is_export)
        graph = read(network)
        images = None if calibration is None else Path(calibration)
        write_model(graph, Check(graph, input_size), images, target, lines.append)
    else:
        check_outputs({"to_lava_dl": target}, [])
        write_network(*_graph("to_lava_dl", network, frames), target, lines.append)
    return "\n".join(lines)


def _check_frames(caller: str, frames: Any) -> None:
    if frames is not None and not isinstance(frames, np.ndarray):
        raise UserError(f"{caller}: frames are a {_kind_of(frames)}, expected a NumPy array (T, *shape)")


def _check_choice(caller: str, name: str, found: Any, choices: tuple[Any, ...]) -> None:
    if found not in choices:
        raise UserError(f"{caller}: {name} is {found!r}, expected one of {', '.join(map(repr, choices))}")


def _check_size(caller: str, size: Any) -> None:
    if not (isinstance(size, (tuple, list)) and [type(side) for side in size] == [int, int] and min(size) > 0):
        raise UserError(f"{caller}: input_size is {size!r}, expected (height, width) in pixels")


def _kind_of(found: Any) -> str:
    return f"class, {found.__name__}" if isinstance(found, type) else type(found).__name__


def _is_ours(writer: str, network: Any, frames: NDArray[Any] | None) -> bool:
    """Whether it is a torch network of this project, which is checked on images; UserError where frames are given."""
    _check_frames(writer, frames)
    if is_network(network) and frames is not None:
        raise UserError(f"{writer}: this {type(network).__name__} is checked on images; frames are for other networks")
    return is_network(network)


def _graph(writer: str, network: Network | nn.Module, frames: NDArray[Any] | None) -> tuple[Network, NDArray[Any]]:
    """The layer graph, and the input that the file is checked with."""
    if not isinstance(network, (Network, nn.Module)):
        raise UserError(f"{writer}: found a {_kind_of(network)}, expected a torch module, or what export.read returns")
    if frames is None:
        raise UserError(f"{writer}: what is written is run before it appears; give frames, an array (T, *shape)")
    graph = network if isinstance(network, Network) else read(network, frames)
    check_sequence(graph, frames)
    return graph, frames
