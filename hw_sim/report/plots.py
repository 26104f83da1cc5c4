"""Charts of one energy report as PNG files: where the energy goes, and how often each layer fires."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.writing import written_beside
from hw_sim.report.energy_report import EnergyReport, LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision
COUNTED = (  # price, count, label, colour
    ("mac", "macs", "analog MACs", "#d55e00"),
    ("ac", "acs", "spike ACs", "#0072b2"),
    ("spike", "spikes", "spikes", "#e69f00"),
    ("neuron_update", "neuron_updates", "neuron updates", "#009e73"),
)
STEPS_SHOWN = 16  # more would be a cloud


def energy_by_block(report: EnergyReport) -> Figure:
    """By block, on a log scale and side by side, the energy of MACs, ACs, spikes and neuron updates; and its share of
    all, which adds up."""
    from matplotlib.figure import Figure

    energies = _energies(report)
    names = list(energies)
    priced = [kind for kind in COUNTED if any(energies[name].get(kind[0], 0) > 0 for name in names)]
    figure = Figure(figsize=(11, 0.12 * len(names) * (len(priced) + 1) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    height = 0.8 / max(1, len(priced))
    for place, (price, _, label, colour) in enumerate(priced):
        rows = [row + (place - (len(priced) - 1) / 2) * height for row in range(len(names))]
        left.barh(rows, [energies[name].get(price, 0) for name in names], height, color=colour, label=label)
    if priced:
        left.set_xscale("log")
        left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(priced))
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.margins(y=0.01)
    left.set_xlabel(f"uJ, log scale, prices '{report.prices.name}'")
    whole = sum(sum(energy.values()) for energy in energies.values())
    shares = [100 * sum(energies[name].values()) / whole if whole else 0.0 for name in names]
    bars = right.barh(range(len(names)), shares, 0.6, color="#999999")
    right.bar_label(bars, [f"{share:.1f} %" if share >= 0.1 else f"{share:.2g} %" for share in shares], padding=3)
    right.margins(x=0.3)
    right.set_xlabel("share of all, %")
    figure.suptitle(f"Where the energy goes: {report.run.network}, {whole:,.1f} uJ")
    _tidy(left, right)
    return figure


def _energies(report: EnergyReport) -> dict[str, dict[str, float]]:
    """Microjoules by block and price, of blocks that cost anything; a layer without a block is one."""
    blocks: dict[str, dict[str, float]] = {}
    for row in report.rows:
        energy = blocks.setdefault(_block(row), {})
        for price, count, _, _ in COUNTED:
            if price in report.prices.prices:
                joules = row.counts[count] * report.prices.prices[price].energy_j
                energy[price] = energy.get(price, 0.0) + joules * 1e6
    return {name: energy for name, energy in blocks.items() if any(energy.values())}


def _block(row: LayerRow) -> str:
    return row.block.removesuffix(".attn") or row.name


def firing_rates(report: EnergyReport) -> Figure:
    """By neuron layer: spikes per neuron and step, in percent, the mean as a bar and each step as a dot."""
    from matplotlib.figure import Figure

    rows = [layer for layer in report.facts if layer.kind == "neuron"]
    figure = Figure(figsize=(11, 0.24 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots()
    chances = [layer.outputs * layer.executions for layer in rows]  # behind a shut gate too
    rates = [100 * layer.events_out / number for layer, number in zip(rows, chances, strict=True)]
    axes.barh(range(len(rows)), rates, 0.6, color="#e69f00", label="mean of all steps")
    for place, (row, number) in enumerate(zip(rows, chances, strict=True)):
        steps = report.per_step.get(row.name, {}).get("spikes", [])
        if 1 < len(steps) <= STEPS_SHOWN:
            of_step = [100 * spikes * len(steps) / number for spikes in steps]
            axes.scatter(
                of_step, [place] * len(steps), 10, color="black", zorder=3, label="a step" if not place else None
            )
    mean = 100 * report.firing_rate
    axes.axvline(mean, color="black", linewidth=0.8, linestyle=":", label=f"all layers: {mean:.1f} %")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlabel("spikes per neuron and step, %")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    figure.suptitle(f"How often each layer fires: {report.run.network}")
    _tidy(axes)
    return figure


def _tidy(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)


CHARTS: dict[str, Callable[[EnergyReport], Figure]] = {"energy_by_block": energy_by_block, "firing_rates": firing_rates}


def chart_names(folder: Path) -> list[Path]:
    """The files that `write_plots` may write."""
    return [folder / f"{name}.png" for name in CHARTS]


def charts_of(report: EnergyReport) -> dict[str, Figure]:
    """The charts by name; without neurons there are no firing rates."""
    fires = any(layer.kind == "neuron" for layer in report.facts)
    return {name: chart(report) for name, chart in CHARTS.items() if fires or chart is not firing_rates}


def write_plots(folder: Path, report: EnergyReport) -> None:
    """One PNG per chart into a folder that exists."""
    for name, figure in charts_of(report).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        with written_beside(folder / f"{name}.png") as beside:
            beside.write_bytes(buffer.getvalue())
