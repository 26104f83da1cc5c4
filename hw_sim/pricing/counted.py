"""A counted network as energy models are asked about it: its layers, and how much of an image they ran on.

In: an energy report as JSON holds it, fresh or saved; `nafnet`. Out: Counted. No torch, no graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esdnet.command.errors import UserError
from hw_sim.pricing.layer_facts import LayerFacts, read_layers
from hw_sim.pricing.nafnet import nafnet_layers

NAFNET = "nafnet"
OF_A_REPORT = {"network", "executed_size", "tiles", "layers", "totals", "firing_rate"}
OF_A_LAYER = {
    "name", "block", "kind", "input", "placement", "spikes", "acs", "macs", "elementwise", "neuron_updates",
    "energy_uj",
}  # fmt: skip
NAFNET_MULTIPLE = 16  # it halves its input four times and pads to that


@dataclass(frozen=True)
class Counted:
    """Facts of all layers, summed over `tiles` executions of `size` (height, width). name: as a table shows it."""

    name: str
    layers: list[LayerFacts]
    size: tuple[int, int]
    tiles: int


def read_report(option: str, path: Path) -> dict[str, Any]:
    """The content of one image's report; UserError, which names the option, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path}: cannot be read as a report: {error}") from error
    if isinstance(content, dict) and "runs" in content:
        raise UserError(f"{option} {path}: is the report of a folder; expected that of one image")
    if not isinstance(content, dict) or OF_A_REPORT - content.keys():
        raise UserError(f"{option} {path}: is not a report of energy.py --json")
    if "facts" not in content:
        raise UserError(f"{option} {path}: was written by a version that did not count for energy models; run it again")
    _check_layers(f"{option} {path}", content["layers"], content["facts"])
    return content


def _check_layers(where: str, layers: Any, facts: Any) -> None:
    """UserError unless the layers are those that the facts are of, and say what they did."""
    for name, records in (("layers", layers), ("facts", facts)):
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f"{where}: {name} are {records!r:.40}, expected a list of layers")
    for layer in layers:
        if missing := sorted(OF_A_LAYER - layer.keys()):
            raise UserError(f"{where}: layer {layer.get('name', '?')} lacks {', '.join(missing)}; run energy.py again")
    if set(range(len(layers))) != set(layer_of_facts(layers, facts)):
        raise UserError(f"{where}: layers and facts are not of the same layers; it was changed after it was written")


def layer_of_facts(layers: list[dict[str, Any]], facts: list[dict[str, Any]]) -> list[int]:
    """The place of the layer that each record of facts is of, -1 for none: of its own name, or, where models read a
    layer as two, of the name before a colon (`from_counts`)."""
    places = {layer["name"]: place for place, layer in enumerate(layers)}
    names = [str(record.get("name")) for record in facts]
    return [places.get(name, places.get(name.rpartition(": ")[0], -1)) for name in names]


def counted_of(report: Mapping[str, Any]) -> Counted:
    """What a report counted."""
    size, tiles, facts = report["executed_size"], report["tiles"], report["facts"]
    if not isinstance(size, (list, tuple)) or [type(side) for side in size] != [int, int] or type(tiles) is not int:
        raise UserError(f"a report's executed_size is {size!r}, tiles {tiles!r}, expected [height, width] and a number")
    if not isinstance(facts, list):
        raise UserError(f"a report's facts are {facts!r:.40}, expected a list of layers")
    return Counted(str(report["network"]), read_layers(facts), (size[0], size[1]), tiles)


def choose_reference(against: str, counted: Counted) -> Counted:
    """What `--against` names, on the same pixels: NAFNet, or the network of another report."""
    if against == NAFNET:
        return nafnet_on(counted.size, counted.tiles)
    other = counted_of(read_report("--against", Path(against)))
    if (other.size, other.tiles) != (counted.size, counted.tiles):
        ran = [f"{each.tiles} x {each.size[0]}x{each.size[1]} pixels" for each in (other, counted)]
        raise UserError(f"--against {against}: ran on {ran[0]}, expected {ran[1]}; give both the same image and --tile")
    return other


def nafnet_on(size: tuple[int, int], tiles: int = 1) -> Counted:
    """NAFNet at width 32 in the same tiles, each side padded to what it needs."""
    height, width = (-(-side // NAFNET_MULTIPLE) * NAFNET_MULTIPLE for side in size)
    layers = [layer.repeated(tiles) for layer in nafnet_layers(height, width)]
    return Counted("NAFNet, width 32", layers, (height, width), tiles)
