"""One counted network under every published energy model, beside its own layers as an ANN and a reference.

In: an energy report as a dictionary. Out: AllModels, which console, JSON and HTML show. No average, no rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hw_sim.pricing.counted import NAFNET, Counted, choose_reference, counted_of
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.model import EnergyModel
from hw_sim.pricing.own_prices import own_prices
from hw_sim.pricing.thresholds import Standing, Threshold, load_thresholds, stand
from hw_sim.pricing.verdicts import ModelRow, Verdict, judge


@dataclass(frozen=True)
class AllModels:
    """Rows of every model that ships, in the order of their names, and the run beside published thresholds.

    reference: None where nothing but the network's own layers is compared with.
    """

    network: Counted
    reference: Counted | None
    step_seconds: float | None
    rows: list[ModelRow]
    standings: list[Standing]

    def to_record(self) -> dict[str, Any]:
        """The keys that the JSON file gains."""
        return {
            "reference": self.reference and self.reference.name,
            "reference_size": self.reference and list(self.reference.size),
            "step_seconds": self.step_seconds,
            "models": [row.to_record() for row in self.rows],
            "thresholds": [asdict(standing) for standing in self.standings],
        }


def price_all(report: Mapping[str, Any], against: str | None = NAFNET, step_seconds: float | None = None) -> AllModels:
    """Every model on what a report counted. against: see `choose_reference`, None for no reference; step_seconds: see
    `Conditions`. Prices of the user's own, which the report was made with, are a model too."""
    network = counted_of(report)
    reference = None if against is None else choose_reference(against, network)
    own = own_prices(report)
    models = [*([own] if own else []), *(load_model(name) for name in available_models())]
    rows = judge(network.layers, models, reference.layers if reference else None, step_seconds)
    return AllModels(network, reference, step_seconds, rows, stand(network.layers, load_thresholds()))


def verdict_words(verdict: Verdict | None) -> str:
    """`wins, 0.47x`, `loses, 1.3x` or `no answer`, there with the price of a MAC at which both are even."""
    if verdict is None:
        return "-"
    if verdict.ratio is not None:
        ratio = f"{verdict.ratio:,.0f}" if verdict.ratio >= 100 else f"{verdict.ratio:.3g}"
        return f"{verdict.word}, {ratio}x"
    price = verdict.break_even_mac_j
    return verdict.word if price is None else f"{verdict.word}; even at {price * 1e12:.3g} pJ a MAC"


def reproduction_words(row: ModelRow) -> str:
    """How far the model is from its source's own figures."""
    return "no figure" if row.reproduces is None else f"to {100 * row.reproduces:.2g} %"


def standing_words(standing: Standing, lines: list[Threshold]) -> str:
    """A quantity of the run beside its thresholds, in one sentence."""
    if standing.value is None:
        return f"{standing.quantity}: no answer, nothing reads spikes"
    bands = {
        line.name: f"{line.low:g}" if line.low == line.high else f"{line.low:g} to {line.high:g}" for line in lines
    }
    sides = ", ".join(f"{side} {bands[name]} ({name})" for name, side in standing.sides.items())
    verdict = f"{standing.verdict} the published thresholds" if standing.verdict == "within" else standing.verdict
    return f"{standing.value:.3g} {standing.quantity}: {verdict}: {sides}"


def notes(model: EnergyModel, row: ModelRow) -> list[str]:
    """What must be known to read a row: the question, what has no price, why there is no answer."""
    unpriced = [f"{count:,} {name}" for name, count in row.energy.unpriced.items()]
    left_out = [f"{count:,} {name}" for name, count in row.energy.left_out.items()]
    verdicts = (row.against_own, row.against_reference)
    reasons = {verdict.why for verdict in verdicts if verdict is not None and verdict.why}
    averages = [f"{name}: {joules * 1e6:,.3g} uJ" for name, joules in row.operating_points.items()]
    lines = [
        model.question,
        *([f"NO PRICE, so the energy is too low: {', '.join(unpriced)}"] if unpriced else []),
        *sorted(reasons),
        *([f"left out: {', '.join(left_out)}"] if left_out else []),
        *([f"not priced: {'; '.join(model.not_priced)}"] if model.not_priced else []),
        *([f"at the source's averages: {'; '.join(averages)}"] if averages else []),
    ]
    return [line if line[-1] in ".?" else f"{line}." for line in lines]
