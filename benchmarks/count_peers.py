"""Other counters on four small networks, beside `hw_sim.count` and a count by hand: one table.

    PYTHON benchmarks/count_peers.py [--json FILE]

Each tool that is installed is asked for what it calls synaptic operations, ACs and MACs; what it says is printed as it
is. Tools: spikingjelly 2.0, NeuroBench, syops, fvcore, thop, onnx-tool (benchmarks/requirements-peers.txt).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Counts = dict[str, Any]


class Silent(nn.Module):
    """An ANN whose ReLU passes nothing: 8 x 16 + 16 x 4 multiplications, for a batch of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)
        nn.init.constant_(self.first.bias, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.first(x)))


class Spiking(nn.Module):
    """snnTorch: two convolutions and a matrix over five steps; the image is shown at each."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 6, 5, padding=2), snntorch.Leaky(beta=0.9)
        self.conv2, self.lif2 = nn.Conv2d(6, 8, 3, padding=1, stride=2), snntorch.Leaky(beta=0.9)
        self.fc = nn.Linear(8 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        total = x.new_zeros(len(x), 5)
        for _ in range(5):
            spikes, mem1 = self.lif1(self.conv1(x), mem1)
            spikes, mem2 = self.lif2(self.conv2(spikes), mem2)
            total = total + self.fc(spikes.flatten(1))
        return total


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Name -> module in evaluation mode, input with a batch of 1."""
    from hw_sim.backends.executors import load_source

    torch.manual_seed(0)
    image = (torch.rand(1, 3, 16, 16) > 0.5).float()
    esdnet = load_source("small_released", None).model
    return {
        "binarised image": (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval(), image),
        "silent ReLU": (Silent().eval(), torch.rand(1, 8)),
        "snnTorch, 5 steps": (Spiking().eval(), 3 * torch.rand(1, 2, 16, 16)),
        "ESDNet, 64 x 64": (esdnet.float().eval(), torch.rand(1, 3, 64, 64)),
    }


def by_hand(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Spikes are told by name, synapses by the gradient of a sum of outputs under weights of 1."""
    from tests.hw_sim.counter.brute_force import count_by_hand

    if name.startswith("ESDNet"):
        return by_graph(model, x)
    found = count_by_hand(model, (x,), {"conv2", "fc"}, {"lif1", "lif2"})
    return {"acs": sum(found.acs.values()), "macs": sum(found.macs.values())}


def by_graph(model: Any, x: Tensor) -> Counts:
    """The graph's simulator: for a network that a count of modules by hooks would miss half of."""
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator

    counts = simulator.run(lower(model), x[0].numpy()).counts.values()
    return {kind: sum(count.totals()[kind] for count in counts) for kind in ("acs", "macs")}


def ours(name: str, model: nn.Module, x: Tensor) -> Counts:
    """`hw_sim.count`."""
    import hw_sim

    totals = hw_sim.count(model, x, strict=True).totals
    return {kind: totals[kind] for kind in ("acs", "macs")}


def with_spikingjelly(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its dispatch counters."""
    from spikingjelly.activation_based import op_counter

    counters = {kind: getattr(op_counter, kind)() for kind in ("SynOpCounter", "ACCounter", "MACCounter")}
    with torch.no_grad(), op_counter.DispatchCounterMode(list(counters.values())):
        model(x)
    return {kind: int(counter.get_total()) for kind, counter in counters.items()}


def with_neurobench(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its synaptic operations."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(model)
    wrapped.register_hooks()
    metric = SynapticOperations()
    with torch.no_grad():
        output = wrapped(x)
        totals = metric(wrapped, output, (x, output))
    wrapped.cleanup_hooks()
    return {key: int(value) for key, value in totals.items()}


def with_syops(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its counts over one batch."""
    from syops import get_model_complexity_info

    loader = [(x, torch.zeros(1))]
    totals, _ = get_model_complexity_info(
        model, tuple(x.shape[1:]), loader, as_strings=False, print_per_layer_stat=False, verbose=False
    )
    return {"total": int(totals[0]), "acs": int(totals[1]), "macs": int(totals[2])}


def with_fvcore(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its flops, which are MACs."""
    from fvcore.nn import FlopCountAnalysis

    return {
        "macs": int(
            FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
        )
    }


def with_thop(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its MACs."""
    from copy import deepcopy

    from thop import profile

    return {"macs": int(profile(deepcopy(model), inputs=(x,), verbose=False)[0])}


def with_onnx_tool(name: str, model: nn.Module, x: Tensor) -> Counts:
    """Its MACs of the traced file."""
    import onnx_tool

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        _write_onnx(name, model, x, path)
        traced = onnx_tool.Model(path, {"verbose": False})
        traced.graph.shape_infer()
        traced.graph.profile()
    return {"macs": int(sum(traced.graph.macs)) if hasattr(traced.graph.macs, "__iter__") else int(traced.graph.macs)}


def _write_onnx(name: str, model: Any, x: Tensor, path: str) -> None:
    if not name.startswith("ESDNet"):
        torch.onnx.export(model, x, path)
        return
    import onnx

    from export.readers.esdnet import lower
    from export.targets.onnx.write import to_model

    file = to_model(lower(model))
    for dim, size in zip(file.graph.input[0].type.tensor_type.shape.dim, x.shape, strict=True):
        dim.dim_value = size
    onnx.save(file, path)


TOOLS: dict[str, Callable[[str, nn.Module, Tensor], Counts]] = {
    "by hand": by_hand,
    "hw_sim.count": ours,
    "spikingjelly": with_spikingjelly,
    "NeuroBench": with_neurobench,
    "syops": with_syops,
    "fvcore": with_fvcore,
    "thop": with_thop,
    "onnx-tool": with_onnx_tool,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, dict[str, Counts]] = {}
    for tool, count in TOOLS.items():
        found[tool] = {}
        for name, (model, x) in networks().items():
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    found[tool][name] = count(name, model, x)
            except Exception as error:  # whatever a tool says of a network is the result
                found[tool][name] = {
                    "fails": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                }
        print(tool, json.dumps(found[tool]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
