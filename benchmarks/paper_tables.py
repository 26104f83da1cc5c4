"""`python -m benchmarks.paper_tables`: which figures of the ESDNet paper follow from its own arithmetic.

In: the released architecture at 256 x 256 (its graph; no weights matter but for --exact). Out: one line per figure of
docs/reproduction.md. --exact also runs the network with random weights on the photo that ships (a minute).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from esdnet.command.errors import report_user_errors

if TYPE_CHECKING:
    from esdnet.networks.esdnet.model import ESDNet
    from export.graph.counting import NodeCounts
    from export.graph.network import Network

SIZE = 256  # pixels a side: the paper's Table 1
FLOP_J = 12.5e-12  # the paper's price of a FLOP
ESDNET_UJ, NAFNET_UJ = 9.150e4, 2.008e5  # as printed in its Table 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="paper_tables.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exact", action="store_true", help="run the whole network and count what it did (a minute)")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _print(args.exact))


def _print(exact: bool) -> int:
    model = released()
    from export.readers.esdnet import lower

    network = lower(model)
    seen, seen_parameters = profiler_totals(network)
    padded, valid = dense_macs(network)
    print(f"parameters of the network: {network.model_parameters:,}")
    print(f"parameters in the modules that the profiler sees: {seen_parameters:,}")
    print(f"operations that the profiler sees: {seen / 1e9:.6f} G, at 12.5 pJ: {seen * FLOP_J * 1e6:.4g} uJ")
    print(
        f"multiplications of the network, T = 4: {padded / 1e9:.1f} G with taps on padding, {valid / 1e9:.1f} G without"
    )
    print(f"1 - {ESDNET_UJ:.3e} / {NAFNET_UJ:.3e} = {1 - ESDNET_UJ / NAFNET_UJ:.1%}")
    for steps in (1, 2, 4, 6, 8):
        print(f"T = {steps}: the profiler would see {profiler_totals(lower(released(steps)))[0] / 1e9:.4f} G")
    print(f"the rule of the paper's text: {text_rule_uj(network):.4g} uJ")
    if exact:
        print(exact_counts(model))
    return 0


def released(steps: int = 4) -> ESDNet:
    """The released architecture, random weights, for T steps."""
    import torch

    from esdnet.networks.esdnet.config import preset
    from esdnet.networks.esdnet.model import ESDNet

    torch.manual_seed(0)
    return ESDNet(dataclasses.replace(preset("released"), steps=steps)).eval()


def profiler_totals(network: Network, size: int = SIZE) -> tuple[int, int]:
    """Operations and parameters that thop 0.1 sees of the authors' code: only modules that are torch's own.

    That leaves out every convolution of theirs that is wrapped to run over steps. It counts a convolution or matrix as
    taps x outputs, padding included, and an average pooling as its inputs plus its outputs; the rest as nothing.
    """
    from math import prod

    from export.graph.network import infer_shapes
    from export.graph.nodes import Conv, Linear, Reduce
    from export.graph.placement import on_host

    shapes = infer_shapes(network, size, size)
    operations = parameters = 0
    for node in network.nodes:
        if node.name not in on_host(network):  # what runs per step is wrapped; attention, refinement and output are not
            continue
        if isinstance(node, (Conv, Linear)):
            operations += prod(shapes[node.name]) * prod(node.weight.shape[1:])
            parameters += node.source_parameters
        elif isinstance(node, Reduce) and node.function == "mean" and _is_pooling_module(node):
            operations += prod(shapes[node.inputs[0]]) + prod(shapes[node.name])
    return operations, parameters


def _is_pooling_module(node: object) -> bool:
    """Means by AdaptiveAvgPool, a module; those over T, or over T and C, are function calls in the authors' code."""
    return {"H", "W"} <= set(getattr(node, "axes", ""))


def dense_macs(network: Network, size: int = SIZE) -> tuple[int, int]:
    """Multiplications of all convolutions and matrices over all steps, taps on padding counted, and left out."""
    from math import prod

    from export.graph.network import infer_shapes
    from export.graph.nodes import Conv, Linear
    from export.graph.taps import dense_taps

    shapes = infer_shapes(network, size, size)
    padded = valid = 0
    for node in network.nodes:
        if isinstance(node, (Conv, Linear)):
            every = prod(shapes[node.name]) * prod(node.weight.shape[1:])
            padded += every
            steps = shapes[node.name][0]
            valid += steps * dense_taps(node, shapes[node.inputs[0]]) if isinstance(node, Conv) else every
    return padded, valid


def silent_counts(network: Network, size: int = SIZE) -> dict[str, NodeCounts]:
    """What every node does, without a run, if no neuron ever fires and every gate is open: all counts but ACs, spikes
    and words of spikes."""
    import numpy as np

    from export.graph.counting import count_node, operands_of
    from export.graph.network import infer_shapes
    from export.graph.nodes import gate_of

    shapes = infer_shapes(network, size, size)
    counts = {}
    for node in network.nodes:
        source = shapes[node.inputs[0]] if node.inputs else (1, 1, 1, 1)
        silent = np.zeros((source[0], *source[2:]), np.int64)
        unfired = np.zeros(shapes[node.name][0], np.int64)
        operands = operands_of(network, shapes, node, silent, unfired)
        gate = gate_of(node)
        opened = {} if gate is None else {"gate": np.ones(shapes[gate][2:], np.int64)}
        counts[node.name] = count_node(node, dataclasses.replace(operands, **opened))
    return counts


def text_rule_uj(network: Network, size: int = SIZE) -> float:
    """The paper's section 4.2 applied to its own network: see `text_rule_energy_j`, which reads no count of spikes."""
    from hw_sim.report.energy_report import text_rule_energy_j

    return text_rule_energy_j(network, silent_counts(network, size)) * 1e6


def exact_counts(model: ESDNet) -> str:
    """What the network really does on the photo that ships, random weights and batch norms fitted to it."""
    import torch

    from benchmarks.measure import crop
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator
    from hw_sim.pricing.prices import load_prices
    from hw_sim.report.energy_report import sum_counts

    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.from_numpy(crop(96))[None])
    network = lower(model.eval())
    counts = simulator.run(network, crop(SIZE), keep_spikes=False).counts
    totals = sum_counts(one.totals() for one in counts.values())
    prices = load_prices("paper")

    def price(kind: str, number: int) -> str:
        return f"{prices.energy_j({**dict.fromkeys(totals, 0), kind: number}) * 1e6:,.0f} uJ"

    def macs(part: str) -> str:
        found = sum(one.totals()["macs"] for name, one in counts.items() if part in f".{name}.")
        return f"{found / 1e9:.2f} G MACs: {price('macs', found)}"

    energy = prices.energy_j(totals) * 1e6
    rate = totals["spikes"] / totals["neuron_updates"]
    return "\n".join(
        [
            f"exact, on the photo: {energy:.4g} uJ, {energy / NAFNET_UJ:.1f} times NAFNet as printed",
            f"  shortcut convolutions: {macs('.shortcut.')}",
            f"  refinement: {macs('.refinement.')}",
            f"  all that reads analog values: {macs('.')}",
            f"  all that reads spikes: {totals['acs'] / 1e9:.2f} G ACs: {price('acs', totals['acs'])}",
            f"  spikes: {totals['spikes'] / 1e6:.1f} M, firing rate {rate:.1%}: {price('spikes', totals['spikes'])}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
