"""The backends that `verify.py` holds against torch: how each is run on a Subject. In: a Subject. Out: a Result.

Heavy imports happen when a backend runs: one that is not installed is 'not run', and says why.
"""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from esdnet.command_line import require_extra
from esdnet.lif import LIF
from esdnet.model import ESDNet
from export.agreement import Values, on_given_inputs
from hw_sim import simulator, torch_backend
from hw_sim.result import Result
from hw_sim.verification import Candidate, FloatPrecision, Subject, simulate_layers


def float_candidates(device: str) -> list[Candidate]:
    """Every backend in floating point, torch first. `device`: where torch runs; the simulator there and on the CPU."""
    fused, unfused = partial(_torch_model, device, True), partial(_torch_model, device, False)
    return [
        _torch_backend(f"torch on {device}", "float32", fused),
        _torch_backend("snnTorch, step by step", "float64", unfused),
        _torch_backend("snnTorch, step by step", "float32", unfused),
        *(_simulator(precision, place) for place in dict.fromkeys((device, "cpu")) for precision in _BOTH),
        Candidate("NIR, written and read back", "float64", _run_nir),
        *(_onnx(precision) for precision in _BOTH),
        *(Candidate("Lava", precision, partial(_run_lava, precision)) for precision in _BOTH),
    ]


_BOTH: tuple[FloatPrecision, FloatPrecision] = ("float64", "float32")


def _torch_model(device: str, fused: bool, precision: FloatPrecision, model: ESDNet) -> ESDNet:
    """A copy of the model; not fused, it calls snntorch.Leaky once per step."""
    ready = copy.deepcopy(model).to(device, getattr(torch, precision)).eval()
    for module in ready.modules():
        if isinstance(module, LIF):
            module.fused = fused
    return ready


def _torch_backend(name: str, precision: FloatPrecision, prepare: Any) -> Candidate:
    def run(subject: Subject) -> Result:
        model = prepare(precision, subject.model)
        device = str(next(model.parameters()).device)
        return torch_backend.run(model, subject.network, subject.image, precision=precision, device=device)

    def run_layers(subject: Subject, given: Values) -> Values:
        return on_given_inputs(prepare(precision, subject.model), subject.network, given)

    return Candidate(name, precision, run, run_layers)


def _simulator(precision: FloatPrecision, device: str) -> Candidate:
    return Candidate(
        f"simulator on {device}",
        precision,
        lambda subject: simulator.run(subject.network, subject.image, precision=precision, device=device),
        lambda subject, given: simulate_layers(subject.network, given, precision),
    )


def _run_nir(subject: Subject) -> Result:
    """Written as stock graphs, read from the files, and run by NIR's own semantics."""
    from export.nir_format import decode_network, open_export
    from export.nir_run import run_export
    from export.nir_write import write_folder

    height, width = subject.image.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network_nir"
        write_folder(subject.network, height, width, path)
        export = open_export(path)
        spikes: dict[str, NDArray[np.bool_]] = {}
        output = run_export(export, decode_network(export), subject.image, spikes.__setitem__)
    return Result(output, spikes)


def _onnx(precision: FloatPrecision) -> Candidate:
    def run(subject: Subject) -> Result:
        require_extra("onnx", "ONNX Runtime")
        from export.onnx_format import to_model
        from export.onnx_run import run_image

        output, spikes = run_image(to_model(subject.network, precision), subject.network, subject.image)
        return Result(output, spikes)

    def run_layers(subject: Subject, given: Values) -> Values:
        from export.onnx_format import to_model
        from export.onnx_run import run_layers

        return run_layers(to_model(subject.network, precision), subject.network, given)

    return Candidate("ONNX Runtime", precision, run, run_layers)


def _run_lava(precision: FloatPrecision, subject: Subject) -> Result:
    from hw_sim import lava_backend

    image = np.asarray(subject.image, precision)
    return lava_backend.run(subject.network, image, precision=precision)
