"""The backends that `verify.py` holds against torch: how each is run on a Subject. In: a Subject. Out: a Result.

Heavy imports happen when a backend runs. Whether it can, because it is installed and has room, is asked before.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from esdnet.command.command_line import require_extra
from esdnet.command.errors import UserError
from esdnet.networks.esdnet.lif import LIF
from export.graph.agreement import FloatPrecision
from export.graph.witness import Values, on_given_inputs
from hw_sim.agreement.judge import Candidate, Subject, simulate_layers
from hw_sim.backends import simulator, torch_model
from hw_sim.backends.executor import LAVA_LIMIT
from hw_sim.backends.result import Result

if TYPE_CHECKING:
    from export.targets.nir.run import OpenedExport


def float_candidates(device: str) -> list[Candidate]:
    """Every backend in floating point, torch first. `device`: where torch runs; the simulator there and on the CPU."""
    fused, unfused = partial(_torch_model, device, True), partial(_torch_model, device, False)
    return [
        _torch_backend(f"torch on {device}", "float32", fused),
        *(_torch_backend("snnTorch, step by step", precision, unfused, has_neurons, UNFUSED) for precision in _BOTH),
        *(_simulator(precision, place) for place in dict.fromkeys((device, "cpu")) for precision in _BOTH),
        _nir(),
        *(_onnx(precision) for precision in _BOTH),
        *(_lava(precision) for precision in _BOTH),
    ]


Ready = Callable[[Subject], None]
UNFUSED = "the modules of the reference but for its neurons"
ON_LAVA = (
    "frames, neurons and delays are Lava's processes; what is without state in a frame, the simulator's rules compute"
)
_BOTH: tuple[FloatPrecision, FloatPrecision] = ("float64", "float32")


def _torch_model(device: str, fused: bool, precision: FloatPrecision, model: nn.Module) -> nn.Module:
    """A copy of the model; not fused, it calls snntorch.Leaky once per step."""
    ready = copy.deepcopy(model).to(device, getattr(torch, precision)).eval()
    for module in ready.modules():
        if isinstance(module, LIF):
            module.fused = fused
    return ready


def has_neurons(subject: Subject) -> None:
    """UserError for a network without spikes, which some backends are not for."""
    if not subject.network.neurons:
        raise UserError("the network has no neurons: there are no spikes to carry from step to step")


def lava_ready(size: tuple[int, int]) -> None:
    """UserError if there is no Lava here, or more pixels than it takes in reasonable time."""
    from hw_sim.backends.lava.host import check_available

    check_available()
    if max(size) > LAVA_LIMIT:
        raise UserError(
            f"Lava: {size[0]}x{size[1]} pixels, at most {LAVA_LIMIT}x{LAVA_LIMIT} at once; take a smaller --crop"
        )


def _torch_backend(
    name: str, precision: FloatPrecision, prepare: Any, ready: Ready = lambda subject: None, note: str = ""
) -> Candidate:
    def run(subject: Subject) -> Result:
        model = prepare(precision, subject.model)
        device = str(next(model.parameters()).device)
        return torch_model.run(model, subject.network, subject.image, precision=precision, device=device)

    def run_layers(subject: Subject, given: Values) -> Values:
        return on_given_inputs(prepare(precision, subject.model), subject.network, given)

    return Candidate(name, precision, run, run_layers, ready, note)


def _simulator(precision: FloatPrecision, device: str) -> Candidate:
    return Candidate(
        f"simulator on {device}",
        precision,
        lambda subject: simulator.run(subject.network, subject.image, precision=precision, device=device),
        lambda subject, given: simulate_layers(subject.network, given, precision, device),
    )


def _nir() -> Candidate:
    def run(subject: Subject) -> Result:
        spikes: dict[str, NDArray[np.bool_]] = {}
        return Result(_written_and_read(subject).run(subject.image, spikes.__setitem__), spikes)

    def run_layers(subject: Subject, given: Values) -> Values:
        return _written_and_read(subject).run_layers(given)

    return Candidate("NIR, written and read back", "float64", run, run_layers, has_neurons)


def _written_and_read(subject: Subject) -> OpenedExport:
    from export.targets.nir.read import decode_network, open_export
    from export.targets.nir.run import OpenedExport
    from export.targets.nir.write import write_folder

    height, width = subject.image.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network_nir"
        write_folder(subject.network, height, width, path)
        export = open_export(path)
        return OpenedExport(export, decode_network(export))


def _onnx(precision: FloatPrecision) -> Candidate:
    def run(subject: Subject) -> Result:
        from export.targets.onnx.run import run_image
        from export.targets.onnx.write import to_model

        output, spikes = run_image(to_model(subject.network, precision), subject.network, subject.image)
        return Result(output, spikes)

    def run_layers(subject: Subject, given: Values) -> Values:
        from export.targets.onnx.run import run_layers
        from export.targets.onnx.write import to_model

        return run_layers(to_model(subject.network, precision), subject.network, given)

    def ready(subject: Subject) -> None:
        require_extra("onnx", "ONNX Runtime")
        if not subject.network.neurons:
            raise UserError("without neurons it is traced, not written from its graph: to_onnx.py runs that file")

    return Candidate("ONNX Runtime", precision, run, run_layers, ready)


def _lava(precision: FloatPrecision) -> Candidate:
    def ready(subject: Subject) -> None:
        has_neurons(subject)
        size = (int(subject.image.shape[1]), int(subject.image.shape[2]))
        lava_ready(size)
        from hw_sim.backends.lava.memory import check_memory
        from hw_sim.backends.lava.plan import make_plan

        check_memory(make_plan(subject.network, size, precision=precision))

    def run(subject: Subject) -> Result:
        from hw_sim.backends import lava

        return lava.run(subject.network, np.asarray(subject.image, precision), precision=precision)

    return Candidate("Lava", precision, run, ready=ready, note=ON_LAVA)
