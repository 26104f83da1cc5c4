"""What a counted run says: totals, layers, a table, JSON, energy under any model or price list.

In: counted rows. Out: the same report that energy.py shows of a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hw_sim.counter.ledger import COUNTS, CountedLayer
from hw_sim.pricing.energy import Energy
from hw_sim.pricing.equations import price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.prices import DEFAULT, PriceList, load_prices
from hw_sim.report.energy_report import EnergyReport, LayerRow, Run


@dataclass(frozen=True, eq=False)
class Report:
    """A run that was counted. output: what the network returned.

    parameters: trainable numbers; counted_parameters: those that layers with weights read. unknown: operations without
    a rule, and how many values they made: they are in no count. by_shape: fused operations that were counted by their
    shapes, so that every value inside is taken not to be 0.
    """

    network: str
    engine: str
    inputs: str
    input_kinds: tuple[str, ...]
    dtype: str
    parameters: int
    counted_parameters: int
    layers: tuple[CountedLayer, ...]
    unknown: dict[str, int]
    by_shape: tuple[str, ...]
    seconds: float
    output: Any

    @cached_property
    def totals(self) -> dict[str, int]:
        """Every count summed over the layers, by name: acs, macs, nonzero_macs, events, spikes, adds, muls, ..."""
        return {count: sum(layer.counts[count] for layer in self.layers) for count in COUNTS}

    @property
    def executed_size(self) -> tuple[int, int]:
        """(height, width) of the first input where that is images, else (1, 1): what another run is compared on."""
        sides = self.inputs.split(", ")[0].split("x")
        return (int(sides[2]), int(sides[3])) if len(sides) == 4 else (1, 1)

    def priced(self, prices: PriceList) -> EnergyReport:
        """The report of energy.py, at these prices."""
        rows = tuple(
            LayerRow(
                layer.name, layer.name, layer.facts.kind, layer.facts.reads, "", layer.counts,
                prices.energy_j(layer.counts),
            )
            for layer in self.layers
        )  # fmt: skip
        kinds = ", ".join(dict.fromkeys(self.input_kinds)) or "no"
        run = Run(
            image=f"{kinds} input {self.inputs}", network=self.network, backend=self.engine, precision=self.dtype,
            steps=1, tile=0, overlap=0, tiles=1, executed_size=self.executed_size, seconds=self.seconds,
            extent=f"one run on {self.inputs}, every element of a batch",
        )  # fmt: skip
        return EnergyReport(
            run=run, prices=prices, rows=rows, model_parameters=self.parameters,
            counted_parameters=self.counted_parameters, references={}, break_even=None,
            facts=tuple(layer.facts for layer in self.layers), per_step={layer.name: {} for layer in self.layers},
        )  # fmt: skip

    def to_dict(self, prices: str = DEFAULT) -> dict[str, Any]:
        """What `energy.py --json` writes, and `unknown`, `by_shape`, `input_kinds`."""
        return self.record(self.priced(load_prices(prices)))

    def record(self, priced: EnergyReport) -> dict[str, Any]:
        """The same, of a report that is priced already."""
        report = priced.to_dict()
        more = {"input_kinds": list(self.input_kinds), "unknown": self.unknown, "by_shape": list(self.by_shape)}
        return {**report, **more, "assumptions": [*self.notes(), *report["assumptions"]]}

    def table(self, prices: str = DEFAULT) -> str:
        """Layer by layer, as text."""
        from rich.console import Console

        from hw_sim.report.console import TABLE_WIDTH, layer_table

        console = Console(width=TABLE_WIDTH, force_terminal=False, no_color=True)
        with console.capture() as text:
            console.print(layer_table(self.priced(load_prices(prices))))
        return "\n".join([*(line.rstrip() for line in text.get().splitlines()), *self.notes()])

    def notes(self) -> list[str]:
        """What must be known to read the counts."""
        lines = []
        if self.unknown:
            listed = ", ".join(f"{name} ({elements:,} values)" for name, elements in self.unknown.items())
            lines.append(f"NOT COUNTED, no rule: {listed}.")
        if self.by_shape:
            lines.append(f"Counted by shape, values inside not seen: {', '.join(self.by_shape)}.")
        return lines

    def energy(self, model: str) -> Energy:
        """Joules by part under a published energy model or price list: its name, or a .toml file (else UserError)."""
        return price(load_model(model), [layer.facts for layer in self.layers])
