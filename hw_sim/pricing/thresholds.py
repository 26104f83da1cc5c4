"""Published thresholds below which a spiking network can cost less than an ANN. Ratios of counts, never joules.

In: the layers of a run. Out: the two quantities that thresholds are stated in, and on which side of each they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hw_sim.pricing.layer_facts import LayerFacts, total
from hw_sim.pricing.toml_file import read_toml

FILE = Path(__file__).parent / "thresholds.toml"
QUANTITIES = ("spikes per synapse and inference", "spikes per neuron and step")


@dataclass(frozen=True)
class Threshold:
    """One published line, or band: below `low` the source lets an SNN win, above `high` not, between it depends.

    holds_for: what the source compared, on which hardware.
    """

    name: str
    quantity: str
    low: float
    high: float
    holds_for: str
    source: str
    grade: str

    def side(self, value: float) -> str:
        """Below, within (both ends included) or above."""
        return "below" if value < self.low else "above" if value > self.high else "within"


@dataclass(frozen=True)
class Standing:
    """A quantity of a run beside all thresholds that are stated in it.

    verdict: "below all", "above all", or "within" the span of the thresholds; "no answer" where there is no value.
    """

    quantity: str
    value: float | None
    sides: dict[str, str]
    verdict: str


def load_thresholds() -> list[Threshold]:
    """All thresholds of thresholds.toml."""
    return [Threshold(**entry) for entry in read_toml(FILE)["threshold"]]


def spikes_per_synapse(layers: list[LayerFacts]) -> float | None:
    """Spikes that cross a synapse in one inference, on average over the synapses of layers that read spikes."""
    reading = [layer for layer in layers if layer.reads == "spike" and layer.taps]
    synapses = sum(layer.taps * layer.runs for layer in reading)
    return total(reading, "acs") / synapses if synapses else None


def firing_rate(layers: list[LayerFacts]) -> float | None:
    """Spikes per neuron and step; a neuron that a gate shuts is one that does not fire."""
    neurons = [layer for layer in layers if layer.kind == "neuron"]
    chances = sum(layer.outputs * layer.executions for layer in neurons)
    return total(neurons, "events_out") / chances if chances else None


def stand(layers: list[LayerFacts], thresholds: list[Threshold]) -> list[Standing]:
    """Both quantities of a run beside the thresholds."""
    values = dict(zip(QUANTITIES, (spikes_per_synapse(layers), firing_rate(layers)), strict=True))
    return [_stand(quantity, value, thresholds) for quantity, value in values.items()]


def _stand(quantity: str, value: float | None, thresholds: list[Threshold]) -> Standing:
    lines = [line for line in thresholds if line.quantity == quantity]
    if value is None or not lines:
        return Standing(quantity, value, {}, "no answer")
    sides = {line.name: line.side(value) for line in lines}
    found = set(sides.values())
    verdict = "below all" if found == {"below"} else "above all" if found == {"above"} else "within"
    return Standing(quantity, value, sides, verdict)
