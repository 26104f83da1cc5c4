"""Charts of one energy report as PNG files: where the energy goes, and how often each layer fires."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.writing import written_beside
from hw_sim.report.energy_report import EnergyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAC_COLOUR, AC_COLOUR, SPIKE_COLOUR = "#c1443c", "#2f6f9f", "#e0a030"


def energy_by_block(report: EnergyReport) -> Figure:
    """Stacked bars per block: energy of analog MACs, spike ACs and spikes, in microjoules."""
    from matplotlib.figure import Figure

    blocks: dict[str, dict[str, int]] = {}
    for row in report.rows:
        counts = blocks.setdefault(row.block.removesuffix(".attn") or "between", {"macs": 0, "acs": 0, "spikes": 0})
        for key in counts:
            counts[key] += row.counts[key]
    names = [name for name, counts in blocks.items() if any(counts.values())]
    figure = Figure(figsize=(9, 0.28 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(names)
    kinds = (
        ("macs", "mac", MAC_COLOUR, "analog MACs"),
        ("acs", "ac", AC_COLOUR, "spike ACs"),
        ("spikes", "spike", SPIKE_COLOUR, "spikes"),
    )
    for count, price, colour, label in kinds:
        if price not in report.prices.prices:
            continue
        values = [blocks[name][count] * report.prices.prices[price].energy_j * 1e6 for name in names]
        axes.barh(names, values, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"energy per image in uJ, prices '{report.prices.name}'")
    axes.set_title("Where the energy goes")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def firing_rates(report: EnergyReport) -> Figure:
    """Bars per neuron layer: spikes per neuron and step, in percent."""
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.counts["neuron_updates"]]
    figure = Figure(figsize=(9, 0.24 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    rates = [100 * row.counts["spikes"] / row.counts["neuron_updates"] for row in rows]
    axes.barh([row.name for row in rows], rates, color=SPIKE_COLOUR)
    axes.axvline(
        100 * report.firing_rate,
        color="black",
        linewidth=0.8,
        linestyle=":",
        label=f"all layers: {report.firing_rate:.1%}",
    )
    axes.invert_yaxis()
    axes.set_xlabel("spikes per neuron and step in %")
    axes.set_title("Firing rates")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


CHARTS = {"energy_by_block": energy_by_block, "firing_rates": firing_rates}


def chart_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def chart_names(folder: Path) -> list[Path]:
    """The files that `write_plots` may write."""
    return [folder / f"{name}.png" for name in CHARTS]


def charts_of(report: EnergyReport) -> dict[str, Figure]:
    """The charts by name; without neurons there are no firing rates."""
    fires = report.total()["neuron_updates"] > 0
    return {name: chart(report) for name, chart in CHARTS.items() if fires or chart is not firing_rates}


def write_plots(folder: Path, report: EnergyReport) -> None:
    """One PNG per chart into a folder that exists."""
    for name, figure in charts_of(report).items():
        with written_beside(folder / f"{name}.png") as beside:
            beside.write_bytes(chart_png(figure))
