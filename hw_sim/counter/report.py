"""What a counted run says: totals, layers, a table, JSON, energy under any model or price list.

In: counted rows. Out: the same report that energy.py shows of a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.command_line import require_extra
from esdnet.command.writing import check_outputs
from hw_sim.counter.ledger import COUNTS, CountedLayer, Row, name_rows
from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.energy import Energy
from hw_sim.pricing.equations import price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.prices import DEFAULT, PriceList, load_prices
from hw_sim.report.energy_report import EnergyReport, LayerRow, Run

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A run that was counted. output: what the network returned.

    rows: counts as they were made; `layers` has them with names and facts. parameters: trainable numbers;
    counted_parameters: those that layers with weights read. unknown: operations without a rule, and how many values
    they made: they are in no count. by_shape: fused operations that were counted by their shapes, so that every value
    inside is taken not to be 0.
    """

    network: str
    engine: str
    inputs: str
    input_kinds: tuple[str, ...]
    dtype: str
    parameters: int
    counted_parameters: int
    rows: tuple[Row, ...]
    unknown: dict[str, int]
    by_shape: tuple[str, ...]
    seconds: float
    output: Any

    @cached_property
    def layers(self) -> tuple[CountedLayer, ...]:
        """What did something, in the order in which it first ran: facts for energy models, counts. Made when asked for:
        a run is counted in less time than its layers are checked."""
        return tuple(name_rows(self.rows))

    def __repr__(self) -> str:
        spikes, acs, macs = (f"{self.totals[name]:,}" for name in ("spikes", "acs", "macs"))
        return f"<Report of {self.network}: {len(self.rows)} layers, {spikes} spikes, {acs} ACs, {macs} MACs>"

    @cached_property
    def totals(self) -> dict[str, int]:
        """Every count summed over the layers, by name: acs, macs, nonzero_macs, events, spikes, adds, muls, ..."""
        return {count: sum(row.counts[count] for row in self.rows) for count in COUNTS}

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

    def to_dataframe(self, prices: str = DEFAULT) -> pandas.DataFrame:
        """A row for each layer, under its name: `kind`, `reads` (spike, graded, analog), every count of `totals`, and
        `energy_uj` at a price list. Needs the extra `dataframe` (pandas), else UserError."""
        require_extra("dataframe", "to_dataframe")
        import pandas

        rows = self.priced(load_prices(prices)).rows
        found = [{"kind": row.kind, "reads": row.input, **row.counts, "energy_uj": row.energy_j * 1e6} for row in rows]
        return pandas.DataFrame(found, index=pandas.Index([row.name for row in rows], name="layer"))

    def to_html(self, path: str | Path, prices: str = DEFAULT) -> None:
        """Write the page that `energy.py --html` writes (docs/report.md), beginning with a price list: one file that
        needs nothing else. UserError if it cannot be written, or without the extra `report`."""
        require_extra("report", "to_html")
        check_outputs({"to_html": Path(path)}, [])
        from hw_sim.report.page.write import write_report

        content = self.to_dict(prices)
        write_report(Path(path), content, price_all(content, against=None), f"hw_sim.count: {self.network}")

    def _repr_html_(self) -> str:
        """The table, as a notebook shows it."""
        from hw_sim.report.notebook import html_table

        return html_table(self.priced(load_prices(DEFAULT)), self.notes())

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
