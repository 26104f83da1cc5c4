"""The table that to_nir prints: what became of every operation, and how the check went.

In: the torch model, its Network, the export's manifest and the check's report. Out: text.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import singledispatch
from itertools import groupby
from math import frexp

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from export.graph import nodes as g
from export.graph.agreement import FLOAT64_OUTPUT
from export.graph.network import Network
from export.graph.nodes import NetworkError, gate_of
from export.graph.store import Record
from export.targets.nir.check import CheckReport
from export.targets.nir.segments import stock_nodes

HEADINGS = ("operation", "becomes", "spikes", "mismatches", "max difference")
Row = tuple[str, str, str, str, str]


@singledispatch
def stock_form(node: g.Node) -> str:
    """The stock primitives that a node becomes, as the table shows them."""
    raise NetworkError(
        f"NIR: {node.name} ({node.kind}): no stock form to report; add one to export/targets/nir/report.py"
    )


@stock_form.register
def _(node: g.Conv) -> str:
    return "Conv2d"


@stock_form.register
def _(node: g.Neuron) -> str:
    driven = bool(np.any(node.gain != 1.0) or np.any(node.bias != 0.0))
    return "Conv2d 1x1, " * driven + "Conv2d 1x1 of its gate, " * (gate_of(node) is not None) + "LIF"


@stock_form.register
def _(node: g.Add) -> str:
    return "two edges"


@stock_form.register
def _(node: g.Concat) -> str:
    return f"{len(node.inputs)} Conv2d 1x1 that place channels"


@stock_form.register
def _(node: g.Affine) -> str:
    return "Conv2d 1x1"


def table(network: Network, manifest: Record, report: CheckReport) -> str:
    """One line per operation; neighbouring host operations of one block, and batch norms, share or name their line."""
    rows = Table(*HEADINGS, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in _rows(network, manifest, report):
        rows.add_row(*row)
    text = io.StringIO()
    Console(width=200, file=text).print(rows)
    return "\n".join([text.getvalue(), *_summary(manifest, report)])


def _rows(network: Network, manifest: Record, report: CheckReport) -> Iterator[Row]:
    stock = stock_nodes(network)
    places = {name: step["segment"] for step in manifest["steps"] if "segment" in step for name in step["nodes"]}

    def owner(node: g.Node) -> str:
        """Host operations of one block share a row; all others have their own."""
        return node.name if node.name in stock else f"{node.block} on the host"

    for key, group in groupby(network.nodes, owner):
        nodes = list(group)
        if key != nodes[0].name:
            yield _host_row(nodes, network, manifest, report)
            continue
        node = nodes[0]
        becomes = f"{stock_form(node)} in {places[node.name]}" if node.name in places else stock_form(node)
        known = node.name in report.spikes
        spikes = f"{report.spikes[node.name]:,}" if known else ""
        yield (node.name, becomes, spikes, str(report.mismatches[node.name]) if known else "", "")
        for norm in node.modules[1:]:
            yield (norm, f"folded into {node.name}", "", "", "")


def _host_row(nodes: list[g.Node], network: Network, manifest: Record, report: CheckReport) -> Row:
    label = nodes[0].name if len(nodes) == 1 else f"{nodes[0].block or nodes[0].name}: {len(nodes)} operations"
    becomes = f"host ({', '.join(dict.fromkeys(node.kind for node in nodes))})"
    difference = f"{report.output_difference:.1e}" if network.output in nodes else ""
    return (label, becomes, "", "", difference)


def _summary(manifest: Record, report: CheckReport) -> Iterator[str]:
    segments = sum("segment" in step for step in manifest["steps"])
    yield f"{segments} stock NIR graphs"
    if not report.spikes:  # it could not be read back
        return
    total, wrong, at_ties = (sum(part.values()) for part in (report.spikes, report.mismatches, report.at_ties))
    yield f"spikes: {total:,} in the torch model, {wrong} differ (promise: 0), and {at_ties:,} at near-ties"
    yield from report.near_ties or ["near-ties: none"]
    silent = sum(not count for count in report.spikes.values())
    yield f"neuron layers silent on all check images, so not exercised: {silent} of {len(report.spikes)}"
    yield f"output: max difference {report.output_difference:.1e} (promise: {FLOAT64_OUTPUT:g})"
    yield f"network read back: {'equal to the last bit' if report.same_network else 'DIFFERENT'}"
    other = sum(report.other_form.values())
    yield f"readers that compute v + dt/tau (r x - v): {other:,} of these spikes differ there on the same currents"


def warnings(network: Network, report: CheckReport) -> Iterator[str]:
    """What the user must know of a good export, in a line each: silence, near-ties, other forms of NIR's equation."""
    total = sum(report.spikes.values())
    if not total:
        yield "nothing spiked on any check image: the check proves nothing of the neurons"
    if report.near_ties:
        differing = sum(report.at_ties.values())
        yield f"{len(report.near_ties)} near-ties, where {differing:,} spikes differ; the first: {report.near_ties[0]}"
    decays = sorted({node.membrane_decay for node in network.of(g.Neuron) if frexp(1 - node.membrane_decay)[0] != 0.5})
    other = sum(report.other_form.values())
    if decays or other:
        which = f"beta {', '.join(f'{decay:g}' for decay in decays)}: 1 - beta is no power of two; " if decays else ""
        yield (
            f"{which}readers that compute v + dt/tau (r x - v) round otherwise: {other:,} of {total:,} spikes differ "
            "there on the check images (docs/nir.md)"
        )
