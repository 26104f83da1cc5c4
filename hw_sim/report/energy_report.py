"""The energy report as data: one row per node, totals by part, and the references that the figure is set beside.

In: a Network and the counts of a run. Out: EnergyReport, which console, JSON and HTML show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from export.graph.counting import OF_VALUES, NodeCounts
from export.graph.network import Network
from export.graph.nodes import Neuron, Node, Repeat, gate_of
from export.graph.placement import place_of
from hw_sim.pricing.from_counts import layer_facts, steps_of
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.prices import PriceList, load_prices, memory_words
from hw_sim.pricing.thresholds import firing_rate, spikes_per_synapse

DENSE_ANN = "the same layers as a dense ANN, one pass"
PAPER_RATE = 0.1642  # "For the binary SNNs, the sparsity is 16.42%" (paper, 4.2)


@dataclass(frozen=True)
class Run:
    """How the counts came about: everything that must be said beside an energy figure."""

    image: str
    network: str
    backend: str
    precision: str
    steps: int
    tile: int
    overlap: int
    tiles: int
    executed_size: tuple[int, int]
    seconds: float
    looks_at_values: bool = True  # whether the backend counted which multiplications were by 0
    facts: dict[str, Any] = field(default_factory=dict)  # what only the backend can know
    extent: str = ""  # what was executed, in words; "": tiles of an image
    computed_in: dict[str, Any] = field(default_factory=dict)  # exact tiles that one run of the whole was computed in


@dataclass(frozen=True)
class LayerRow:
    """One node: what it is, what it read, where it ran, what it did (totals over steps and tiles)."""

    name: str
    block: str
    kind: str
    input: str
    placement: str
    counts: dict[str, int]
    energy_j: float
    inputs: tuple[str, ...] = ()  # the nodes whose values it reads; none where there is no graph

    @property
    def elementwise(self) -> int:
        """Element-wise additions and multiplications together."""
        return self.counts["adds"] + self.counts["muls"]

    def to_dict(self) -> dict[str, Any]:
        """The row as the JSON file has it; energy in microjoules."""
        counts = self.counts
        return {
            "name": self.name,
            "block": self.block,
            "kind": self.kind,
            "input": self.input,
            "placement": self.placement,
            "inputs": list(self.inputs),
            "spikes": counts["spikes"],
            "acs": counts["acs"],
            "macs": counts["macs"],
            "elementwise": self.elementwise,
            "energy_uj": self.energy_j * 1e6,
            **{key: counts[key] for key in counts if key not in ("spikes", "acs", "macs")},
        }


@dataclass(frozen=True)
class EnergyReport:
    """All that is known about one image's run and its price."""

    run: Run
    prices: PriceList
    rows: tuple[LayerRow, ...]
    model_parameters: int
    counted_parameters: int
    references: dict[str, float]  # joules, by what they mean
    break_even: float | None  # AC price over MAC price below which the run costs less than the dense ANN
    facts: tuple[LayerFacts, ...] = ()  # what energy models read, node by node
    per_step: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # counts of a node, step by step
    open_shares: dict[str, float] = field(default_factory=dict)  # of a gate's pixels, over all that was executed

    def total(self, selected: Callable[[LayerRow], bool] = lambda row: True) -> dict[str, int]:
        """Counts summed over the rows that `selected` accepts."""
        return sum_counts(row.counts for row in self.rows if selected(row))

    def energy_j(self, selected: Callable[[LayerRow], bool] = lambda row: True) -> float:
        """Energy of the rows that `selected` accepts, without element-wise work and memory."""
        return sum(row.energy_j for row in self.rows if selected(row))

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and step."""
        return firing_rate(list(self.facts)) or 0.0

    @property
    def spikes_per_synapse(self) -> float | None:
        """In one inference; None of a network none of whose layers reads spikes."""
        return spikes_per_synapse(list(self.facts))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/counting.md names every field); energies in microjoules."""
        totals = self.total()
        run = self.run
        return {
            "image": run.image,
            "network": run.network,
            "backend": run.backend,
            "precision": run.precision,
            "steps": run.steps,
            "tile": run.tile,
            "overlap": run.overlap,
            "tiles": run.tiles,
            "executed_size": list(run.executed_size),
            "extent": run.extent,
            "seconds": run.seconds,
            "backend_facts": run.facts,
            **({"computed_in": run.computed_in} if run.computed_in else {}),
            "prices": self.prices.name,
            "prices_pj": self.prices.to_record(),
            "assumptions": assumptions(self),
            "parameters": {"model": self.model_parameters, "counted": self.counted_parameters},
            "firing_rate": self.firing_rate,
            "spikes_per_synapse": self.spikes_per_synapse,
            **({"gates_open": self.open_shares} if self.open_shares else {}),
            "totals": {
                "spikes": totals["spikes"],
                "acs": totals["acs"],
                "macs": totals["macs"],
                "elementwise": totals["adds"] + totals["muls"],
                "energy_uj": self.energy_j() * 1e6,
                **{key: value for key, value in totals.items() if key not in ("spikes", "acs", "macs")},
            },
            "unpriced": self.prices.unpriced(totals),
            "references_uj": {name: energy * 1e6 for name, energy in self.references.items()},
            "break_even_ac_to_mac_price": self.break_even,
            "layers": [row.to_dict() for row in self.rows],
            "facts": [{**facts.to_record(), "per_step": self.per_step.get(facts.name, {})} for facts in self.facts],
        }


def sum_counts(rows: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts added up, field by field; those that a row lacks are lacking."""
    counted = list(rows)
    if not counted:
        return NodeCounts.zeros(1).totals()
    names = [name for name in counted[0] if all(name in counts for counts in counted)]
    return {name: sum(counts[name] for counts in counted) for name in names}


def build_report(network: Network, counts: dict[str, NodeCounts], run: Run, prices: PriceList) -> EnergyReport:
    """Price the counts of a run. Every node of the network must have been counted."""
    rows = []
    for node in network.nodes:
        totals = counts[node.name].totals()
        if not run.looks_at_values:
            totals = {key: value for key, value in totals.items() if key not in OF_VALUES}
        read = network.kinds[node.inputs[0]].value if node.inputs else "analog"
        energy = prices.energy_j(totals)
        place = place_of(network, node)
        rows.append(LayerRow(node.name, node.block, node.kind, read, place, totals, energy, node.inputs))
    totals = sum_counts(row.counts for row in rows)
    ann_macs = dense_ann_macs(network, counts)
    facts = tuple(layer_facts(network, counts, run.executed_size, run.tiles, run.looks_at_values))
    acs, spiking = totals["acs"], network.has_neurons or totals["acs"] > 0  # else it is that ANN
    return EnergyReport(
        run=run,
        prices=prices,
        rows=tuple(rows),
        model_parameters=network.model_parameters,
        counted_parameters=sum(node.source_parameters for node in network.nodes if node.name in counts),
        references={
            **({"the paper's text rule": text_rule_energy_j(network, counts)} if _is_of_the_paper(network) else {}),
            **({DENSE_ANN: prices.energy_j({**NodeCounts.zeros(1).totals(), "macs": ann_macs})} if spiking else {}),
        },
        break_even=(ann_macs - totals["macs"]) / acs if acs else None,
        facts=facts,
        per_step={node.name: steps_of(counts[node.name]) for node in network.nodes},
        open_shares=open_shares(network, facts),
    )


def open_shares(network: Network, facts: Iterable[LayerFacts]) -> dict[str, float]:
    """By gate, the share of its pixels that were open: that of the neurons behind it which were updated. Of gates that
    have neurons behind them."""
    found: dict[str, float] = {}
    for layer in facts:
        gate = gate_of(network[layer.name]) if layer.kind == "neuron" else None
        if gate is not None:
            found.setdefault(gate, layer.neuron_updates / (layer.outputs * layer.executions))
    return found


def _is_of_the_paper(network: Network) -> bool:
    """Its text rule knows ESDNets, and no gates."""
    return network.reader == "esdnet" and not network.gates


def dense_ann_macs(network: Network, counts: dict[str, NodeCounts]) -> int:
    """Multiply-accumulates of the same layers run once, with analog values everywhere: the ANN without time steps."""
    return sum(int(counts[node.name].dense_taps.sum()) // len(counts[node.name].dense_taps) for node in network.nodes)


def text_rule_energy_j(network: Network, counts: dict[str, NodeCounts]) -> float:
    """Energy by the paper's text (section 4.2), always at the paper's prices: encoding layer, refinement block and
    output layer in FLOPs; every other layer, the analog shortcuts too, as SOPs = 16.42 % x T x dense operations."""
    paper = load_prices("paper").prices
    energy = 0.0
    for node in network.nodes:
        totals = counts[node.name].totals()
        if isinstance(node, Neuron):
            energy += PAPER_RATE * totals["neuron_updates"] * paper["spike"].energy_j
        elif _is_flop_layer(network, node):
            energy += totals["dense_taps"] * paper["mac"].energy_j
        else:
            energy += PAPER_RATE * totals["dense_taps"] * paper["ac"].energy_j
    return energy


def _is_flop_layer(network: Network, node: Node) -> bool:
    """The first encoding convolution, and what runs after the time mean."""
    first = any(isinstance(network[name], Repeat) or not network[name].inputs for name in node.inputs)
    return first or node.block.split(".")[0] in ("refinement", "output")


def price_table(totals: dict[str, int], lists: Iterable[PriceList]) -> list[dict[str, Any]]:
    """The same counts, summed over a network, under every list, in microjoules: alone, with element-wise work, with
    memory words too.

    None where the list has no such price; `unpriced` names MACs, ACs or spikes that it cannot price at all.
    """
    table = []
    for prices in lists:
        elementwise, memory = prices.prices_elementwise(), prices.prices_memory()
        table.append(
            {
                "prices": prices.name,
                "title": prices.title,
                "energy_uj": prices.energy_j(totals) * 1e6,
                "with_elementwise_uj": prices.energy_j(totals, elementwise=True) * 1e6 if elementwise else None,
                "with_memory_uj": prices.energy_j(totals, elementwise=True, memory=True) * 1e6 if memory else None,
                "unpriced": prices.unpriced(totals),
            }
        )
    return table


def assumptions(report: EnergyReport) -> list[str]:
    """What must be known to read the figures; shown under every table."""
    run, totals = report.run, report.total()
    lines = [
        f"Counted: what was executed, {run.extent or _image_extent(run)}.",
        "An operation on spikes is an AC (one per spike and synapse that exists); on analog values a MAC."
        " Taps on padding are no work. A layer that reads the image repeated over time runs at every step.",
        *_analog_convolutions(report),
        *_behind_gates(report),
        f"Not in the energy above: {totals['adds'] + totals['muls']:,} element-wise operations and"
        f" {memory_words(totals):,.0f} words moved; the table of price lists shows them where a list prices them.",
        f"Prices '{report.prices.name}': "
        + "; ".join(f"{k} {p.energy_j * 1e12:g} pJ ({p.grade})" for k, p in report.prices.prices.items())
        + ".",
    ]
    unpriced = report.prices.unpriced(totals)
    if unpriced:
        lines.append(
            "UNPRICED by this list, so the total is too low: "
            + ", ".join(f"{n:,} {k}" for k, n in unpriced.items())
            + "."
        )
    return lines


def _image_extent(run: Run) -> str:
    height, width = run.executed_size
    if run.computed_in:
        return f"{height} x {width} pixels as one whole, {run.steps} steps, image padding included; {_computed_in(run)}"
    tiling = f"in {run.tiles} tiles of up to {run.tile} px, overlaps counted" if run.tile else "as one whole"
    return f"{height} x {width} pixels ({tiling}), {run.steps} steps, image padding included"


def _computed_in(run: Run) -> str:
    """What really ran, for a reader who would price the halos too."""
    tiles, totals = run.computed_in, run.computed_in["totals"]
    work = ", ".join(
        f"{totals[key]:,} {name}" for key, name in (("spikes", "spikes"), ("acs", "ACs"), ("macs", "MACs"))
    )
    return (
        f"it was computed in {tiles['tiles']} tiles of up to {tiles['tile']} px with a halo of {max(tiles['halo'])} px,"
        f" {tiles['overhead']:.2f} times the pixels: {work} as executed, of which the halos' are thrown away"
    )


def _analog_convolutions(report: EnergyReport) -> list[str]:
    """How many convolutions multiply, by name where they are few; nothing where there are none."""
    convolutions = [row for row in report.rows if row.kind == "conv"]
    analog = [row.name for row in convolutions if row.input != "spike"]
    names = f": {', '.join(analog)}" if 0 < len(analog) <= 3 else ""
    line = f"{len(analog)} of {len(convolutions)} convolutions read real values and multiply{names}."
    return [line] if convolutions else []


def _behind_gates(report: EnergyReport) -> list[str]:
    line = (
        "Behind a shut gate nothing is updated and nothing multiplies; what makes a gate is counted as any other layer."
        " Rates are over all neurons and synapses, those of shut pixels too."
    )
    return [line] if report.open_shares else []


def summary_dict(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums and means over several images as `EnergyReport.to_dict` has them, for the JSON file of a folder."""
    if not runs:
        return {"images": 0}
    energies = [run["totals"]["energy_uj"] for run in runs]
    used = [run["spikes_per_synapse"] for run in runs]
    return {
        "images": len(runs),
        "mean_energy_uj": sum(energies) / len(energies),
        "min_energy_uj": min(energies),
        "max_energy_uj": max(energies),
        "mean_firing_rate": sum(run["firing_rate"] for run in runs) / len(runs),
        "mean_spikes_per_synapse": None if None in used else sum(used) / len(runs),
        "mean_gates_open": {
            gate: sum(run["gates_open"][gate] for run in runs) / len(runs) for gate in runs[0].get("gates_open", {})
        },
        "totals": {key: sum(run["totals"][key] for run in runs) for key in runs[0]["totals"]},
    }
