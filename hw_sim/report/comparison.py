"""Two reports side by side: totals, layers matched by name, every energy model.

In: two reports as JSON holds them, a price list. Out: Comparison, which console, JSON and HTML show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.energy import Energy
from hw_sim.pricing.prices import PriceList

Report = Mapping[str, Any]
Layer = Mapping[str, Any]
RUN = ("network", "image", "backend", "precision", "steps", "executed_size", "tiles", "tile", "overlap")
COUNTS = ("spikes", "acs", "macs", "nonzero_macs", "elementwise", "neuron_updates")


@dataclass(frozen=True)
class Pair:
    """A layer of that name in both networks, or in one: then the other is None. Energies in microjoules."""

    name: str
    first: Layer | None
    second: Layer | None
    energies_uj: tuple[float, float]

    @property
    def where(self) -> str:
        """'both', 'a' or 'b'."""
        return "both" if self.first and self.second else "a" if self.first else "b"


@dataclass(frozen=True)
class ModelPair:
    """Both networks under one model, asked one way."""

    title: str
    variant: str
    energies: tuple[Energy, Energy]

    @property
    def ratio(self) -> float | None:
        """Second over first; None where either has work without a price."""
        first, second = self.energies
        return None if first.unpriced or second.unpriced or not first.total_j else second.total_j / first.total_j


@dataclass(frozen=True)
class Comparison:
    """Two runs. same_input: whether they ran on the same image or array, in the same pieces."""

    first: Report
    second: Report
    prices: PriceList
    pairs: list[Pair]
    models: list[ModelPair]

    @property
    def runs(self) -> tuple[Report, Report]:
        """Both."""
        return self.first, self.second

    @property
    def same_input(self) -> bool:
        """Whether a difference is the networks', and not that of what they ran on."""
        return all(self.first.get(key) == self.second.get(key) for key in ("image", "executed_size", "tiles"))

    @property
    def energies_uj(self) -> tuple[float, float]:
        """Of both runs, at the price list."""
        first, second = (self.prices.energy_j(dict(run["totals"])) * 1e6 for run in self.runs)
        return first, second

    def totals(self) -> dict[str, tuple[float, float]]:
        """Counts that both have, the firing rate if any fires, and microjoules, of both."""
        both = (self.first["totals"], self.second["totals"])
        counts = {key: (both[0][key], both[1][key]) for key in COUNTS if all(key in totals for totals in both)}
        rates = {"firing_rate": (self.first["firing_rate"], self.second["firing_rate"])}
        used = (self.first.get("spikes_per_synapse"), self.second.get("spikes_per_synapse"))
        if used[0] is not None and used[1] is not None:
            rates["spikes_per_synapse"] = used
        return {**counts, **(rates if any(counts["neuron_updates"]) else {}), "energy_uj": self.energies_uj}

    def run_rows(self) -> list[tuple[str, str, str]]:
        """What was run, in words: a title, what it was in the first, in the second."""
        first, second = self.runs
        return [(key.replace("_", " "), _words(key, first.get(key)), _words(key, second.get(key))) for key in RUN]

    def to_record(self) -> dict[str, Any]:
        """What --json writes."""
        return {
            "runs": [{key: run.get(key) for key in RUN} for run in self.runs],
            "same_input": self.same_input,
            "prices": self.prices.name,
            "totals": {key: list(numbers) for key, numbers in self.totals().items()},
            "layers": [_layer_record(pair) for pair in self.pairs],
            "models": [
                {
                    "title": pair.title,
                    "variant": pair.variant,
                    "energy_uj": [energy.total_j * 1e6 for energy in pair.energies],
                    "unpriced": [energy.unpriced for energy in pair.energies],
                    "ratio": pair.ratio,
                }
                for pair in self.models
            ],
        }


def compare_reports(first: Report, second: Report, prices: PriceList) -> Comparison:
    """Both runs layer by layer at one price list, and under every model that ships."""
    models = [price_all(at_prices(report, prices), None).rows for report in (first, second)]
    return Comparison(
        first=first,
        second=second,
        prices=prices,
        pairs=[
            _pair(name, *layers, prices) for name, layers in pair_by_name(first["layers"], second["layers"]).items()
        ],
        models=[ModelPair(a.model.title, a.variant, (a.energy, b.energy)) for a, b in zip(*models, strict=True)],
    )


def at_prices(report: Report, prices: PriceList) -> Report:
    """A report that says to have been made with these prices: two have the same models, one's own prices among them."""
    return {**report, "prices": prices.name, "prices_pj": prices.to_record()}


def pair_by_name(first: list[Layer], second: list[Layer]) -> dict[str, tuple[Layer | None, Layer | None]]:
    """By name, in the order of the first network; what is in the second alone comes after what it follows there."""
    others = {layer["name"]: layer for layer in second}
    places = {layer["name"]: place for place, layer in enumerate(first)}
    follows: dict[int, list[Layer]] = {}
    last = -1  # the furthest place in the first network that the second has come to
    for layer in second:
        if layer["name"] in places:
            last = max(last, places[layer["name"]])
        else:
            follows.setdefault(last, []).append(layer)
    pairs: dict[str, tuple[Layer | None, Layer | None]] = {
        other["name"]: (None, other) for other in follows.get(-1, [])
    }
    for place, layer in enumerate(first):
        pairs[layer["name"]] = (layer, others.get(layer["name"]))
        pairs |= {other["name"]: (None, other) for other in follows.get(place, [])}
    return pairs


def _words(key: str, value: Any) -> str:
    """A size as height x width, no tile as the whole image, what a report lacks as nothing."""
    if key == "executed_size" and value:
        return "x".join(map(str, value))
    if key == "tile" and value == 0:
        return "whole"
    return "" if value is None else str(value)


def _pair(name: str, first: Layer | None, second: Layer | None, prices: PriceList) -> Pair:
    a, b = (prices.energy_j(dict(layer)) * 1e6 if layer else 0.0 for layer in (first, second))
    return Pair(name, first, second, (a, b))


def _layer_record(pair: Pair) -> dict[str, Any]:
    keys = ("kind", "input", "placement", *COUNTS)
    sides = [layer and {key: layer[key] for key in keys if key in layer} for layer in (pair.first, pair.second)]
    return {"name": pair.name, "in": pair.where, "energy_uj": list(pair.energies_uj), "a": sides[0], "b": sides[1]}
