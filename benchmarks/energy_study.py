"""`python -m benchmarks.energy_study`: what the released and the spike-driven network cost, under every price list.

In: the two checkpoints that ship and rainy images (the one that ships, or --images DIR). Out: the tables of
docs/energy.md, and --json. Networks without trained weights (dim 48) are counted with the firing rates that the trained
one of their kind shows, layer by layer, on each image: a range, not a figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.paper_tables import ESDNET_UJ, FLOP_J, NAFNET_UJ
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import check_writable, write_json
from esdnet.images.crops import middle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.counting import NodeCounts
    from export.graph.network import Network
    from export.graph.nodes import Node

    Image = NDArray[np.float32]
    Totals = dict[str, int]

ROOT = Path(__file__).resolve().parents[1]
SIZE = 256  # pixels a side: the paper's Table 1
NAFNET_MACS = NAFNET_UJ * 1e-6 / FLOP_J  # what the paper's figure for NAFNet stands for: 16.06 G
KINDS = {
    "released": ("small_released", "released"),
    "spike-driven": ("small_spike_driven", "spike_driven"),
    "gated": ("small_gated", "gated"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One network: its counts on every image, and the frames that it needs before it gives its first one."""

    name: str
    trained: bool
    latency: int
    totals: list[Totals]
    dense_macs: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="energy_study.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of rainy images (default: the one that ships)")
    parser.add_argument("--limit", type=int, default=8, help="images taken from the folder (default: 8)")
    parser.add_argument("--released", type=Path, default=ROOT / "esdnet/checkpoints/small_released.pt")
    parser.add_argument("--spike-driven", type=Path, default=ROOT / "esdnet/checkpoints/small_spike_driven.pt")
    parser.add_argument("--json", type=Path, help="write every count and energy to this file")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _study(args))


def _study(args: argparse.Namespace) -> int:
    from hw_sim.pricing.prices import available, load_prices

    if args.json:
        check_writable("--json", args.json)
    images = load_images(args.images, args.limit)
    rows = [
        row
        for kind, checkpoint in (("released", args.released), ("spike-driven", args.spike_driven))
        for row in measure(kind, checkpoint, images)
    ]
    lists = [load_prices(name) for name in available()]
    print(operations_table(rows))
    for prices in lists:
        print(price_table(rows, prices))
    print(break_even_table(rows))
    if args.json:
        write_json(args.json, {"images": len(images), "rows": [dataclasses.asdict(row) for row in rows]})
    return 0


def load_images(folder: Path | None, limit: int) -> list[Image]:
    """Middles of SIZE x SIZE, (3, SIZE, SIZE) float32."""
    import numpy as np

    from benchmarks.measure import PHOTO
    from esdnet.images.files import list_images, load_image

    images = []
    for path in [PHOTO] if folder is None else list_images(folder)[:limit]:
        image = load_image(path)
        if min(image.shape[:2]) < SIZE:
            raise UserError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, expected at least {SIZE}x{SIZE}")
        part = image[middle(image.shape[:2], (SIZE, SIZE))].transpose(2, 0, 1)
        images.append(np.ascontiguousarray(part, np.float32))
    return images


def measure(kind: str, checkpoint: Path, images: list[Image]) -> list[Row]:
    """The trained network as it ran, and the one of dim 48 with its rates."""
    import torch

    from esdnet.networks.checkpoint import load_checkpoint
    from esdnet.networks.esdnet.config import preset
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator

    small_name, full_name = KINDS[kind]
    model = load_checkpoint(checkpoint)
    if model.config != preset(small_name):
        raise UserError(f"{checkpoint}: holds {model.config}, expected the preset {small_name}")
    small = lower(model, small_name)
    runs = [simulator.run(small, image, keep_spikes=False).counts for image in images]
    torch.manual_seed(0)
    full = lower(ESDNet(preset(full_name)).eval(), full_name)
    scaled = [counts_at_rates(full, layer_rates(small, counts)) for counts in runs]
    return [
        _row(f"{kind}, dim {model.config.dim}", True, small, runs),
        _row(f"{kind}, dim {preset(full_name).dim}", False, full, scaled),
    ]


def _row(name: str, trained: bool, network: Network, runs: list[dict[str, NodeCounts]]) -> Row:
    from hw_sim.backends.lava.plan import make_plan
    from hw_sim.report.energy_report import dense_ann_macs, sum_counts

    side = 8 * network.size_multiple
    totals = [sum_counts(one.totals() for one in counts.values()) for counts in runs]
    return Row(name, trained, make_plan(network, (side, side)).latency, totals, dense_ann_macs(network, runs[0]))


def layer_rates(network: Network, counts: dict[str, NodeCounts]) -> dict[str, dict[str, float]]:
    """By node and count: of a convolution that reads spikes, ACs over dense operations and spikes over inputs; of a
    neuron, spikes per step; behind a gate, what was done over what is done where it is open."""
    from benchmarks.paper_tables import silent_counts

    everything = silent_counts(network, SIZE)
    rates = {}
    for node in network.nodes:
        done, most = counts[node.name].totals(), everything[node.name].totals()
        fields = _rate_fields(network, node).items()
        rates[node.name] = {spent: done[spent] / most[of] for spent, of in fields if most[of]}
    return rates


def _rate_fields(network: Network, node: Node) -> dict[str, str]:
    """What a node did by the count of the most that it can do: their ratios are its firing rates."""
    from export.graph.counting import COUNTED
    from export.graph.nodes import Conv, Neuron, ValueKind, gate_of

    behind = {} if gate_of(node) is None else {name: name for name in COUNTED}
    if isinstance(node, Neuron):
        return {**behind, "spikes": "neuron_updates"}
    if isinstance(node, Conv) and network.kinds[node.inputs[0]] is ValueKind.SPIKE:
        return {"acs": "dense_taps", "events_in": "spike_bits"}
    return behind


def counts_at_rates(network: Network, rates: dict[str, dict[str, float]]) -> dict[str, NodeCounts]:
    """Counts of a network whose layers fire as the layers in their places do in one with fewer blocks."""
    import numpy as np

    from benchmarks.paper_tables import silent_counts

    blocks = _blocks_per_stage(rates)
    own = _blocks_per_stage([node.name for node in network.nodes])
    counts = silent_counts(network, SIZE)
    for node in network.nodes:
        everything, fields = counts[node.name], _rate_fields(network, node)
        for spent, rate in rates[_place(node.name, own, blocks)].items():
            number = np.rint(getattr(everything, fields[spent]) * rate).astype(np.int64)
            counts[node.name] = dataclasses.replace(counts[node.name], **{spent: number})
    return counts


def _blocks_per_stage(names: Iterable[str]) -> dict[str, int]:
    """How many blocks each encoder and decoder level has, from names such as encoder_level1.0.residual.1."""
    found: dict[str, int] = {}
    for name in names:
        stage, number, *_ = [*name.split("."), ""]
        if "_level" in stage and number.isdecimal() and stage != "reduce_chan_level2":
            found[stage] = max(found.get(stage, 0), int(number) + 1)
    return found


def _place(name: str, own: dict[str, int], trained: dict[str, int]) -> str:
    """The layer of the trained network that stands where this one does: block 5 of 8 is block 2 of 4."""
    stage, *rest = name.split(".")
    if stage not in own:
        return name
    block = int(rest[0]) * trained[stage] // own[stage]
    return ".".join([stage, str(block), *rest[1:]])


def operations_table(rows: list[Row]) -> str:
    """Operations at 256x256, and the frames that pass before the first comes out."""
    lines = [
        "| network, 256x256 | MACs | ACs | spikes | firing rate | element-wise | frames of delay |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = _range([100 * each["spikes"] / each["neuron_updates"] for each in row.totals], "{:.1f}")
        lines.append(
            f"| {row.name} | {_range([each['macs'] / 1e9 for each in row.totals], '{:.3f}')} G "
            f"| {_range([each['acs'] / 1e9 for each in row.totals], '{:.2f}')} G "
            f"| {_range([each['spikes'] / 1e6 for each in row.totals], '{:.1f}')} M | {rate} % "
            f"| {_range([(each['adds'] + each['muls']) / 1e9 for each in row.totals], '{:.2f}')} G | {row.latency} |"
        )
    return "\n".join(lines) + "\n"


def price_table(rows: list[Row], prices: Any) -> str:
    """Energies under one price list in uJ, and what NAFNet's multiplications cost under it."""
    nafnet = prices.prices["mac"].energy_j * NAFNET_MACS * 1e6 if "mac" in prices.prices else None
    lines = [
        f"{prices.title} (`{prices.name}`):",
        "",
        "| network, 256x256 | MACs, ACs, spikes (uJ) | + element-wise | + memory | times NAFNet's MACs | not priced |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        energies = [prices.energy_j(each) * 1e6 for each in row.totals]
        more = [prices.energy_j(each, elementwise=True) * 1e6 for each in row.totals]
        most = [prices.energy_j(each, elementwise=True, memory=True) * 1e6 for each in row.totals]
        shares = [energy / nafnet for energy in energies] if nafnet else []
        lines.append(
            f"| {row.name} | {_range(energies)} | {_range(more) if prices.prices_elementwise() else '-'} "
            f"| {_range(most) if prices.prices_memory() else '-'} | {_range(shares, '{:.3g}') if shares else '-'} "
            f"| {', '.join(prices.unpriced(row.totals[0])) or '-'} |"
        )
    if nafnet:
        lines.append(f"| NAFNet as the paper counts it: {NAFNET_MACS / 1e9:.2f} G | {nafnet:,.0f} | | | 1 | |")
    if prices.name == "paper":
        lines.append(f"| ESDNet as the paper counts it | {ESDNET_UJ:,.0f} | | | {ESDNET_UJ / NAFNET_UJ:.3g} | |")
    return "\n".join(lines) + "\n"


def break_even_table(rows: list[Row]) -> str:
    """The price of an AC, in prices of a MAC, up to which the network costs less; spikes not priced."""
    lines = [
        "| network | costs less than the same layers as an ANN, run once, if an AC is at most | than NAFNet |",
        "|---|---|---|",
    ]
    for row in rows:
        cells = []
        for macs in (row.dense_macs, NAFNET_MACS):
            limits = [(macs - each["macs"]) / each["acs"] for each in row.totals]
            cells.append(f"{_range(limits, '{:.2f}')} of a MAC" if min(limits) > 0 else "never: more MACs than it has")
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(values: list[float], form: str = "{:,.0f}") -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} - {high}"


if __name__ == "__main__":
    sys.exit(main())
