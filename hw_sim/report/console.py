"""The energy report on a terminal: per-layer table, totals by part, price lists, references, assumptions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hw_sim.report.energy_report import EnergyReport, LayerRow, assumptions, price_table, sum_counts, summary_dict

TABLE_WIDTH = 200  # columns that tables may take; they are as wide as their content
TEXT_WIDTH = 120


def open_console() -> Console:
    """A console wide enough for every table, whatever the terminal: a number that is cut off is no number."""
    return Console(width=TABLE_WIDTH)


def print_report(console: Console, report: EnergyReport, prices: list[Any]) -> None:
    """Everything about one image."""
    run = report.run
    extent = run.extent or f"T = {run.steps}"
    console.print(
        f"[bold]{run.image}[/bold] through {run.network}, {extent}, {run.backend}, {run.precision}, {run.seconds:.1f} s"
    )
    console.print(layer_table(report))
    console.print(part_table(report))
    if report.references:
        console.print(reference_table(report))
    console.print(price_list_table(price_table(report.total(), prices)))
    for line in assumptions(report):
        console.print(textwrap.fill(f"- {line}", TEXT_WIDTH, subsequent_indent="  "), highlight=False, markup=False)


def layer_table(report: EnergyReport) -> Table:
    """Neurons and layers one by one; the element-wise rest of each block in one line."""
    table = Table(title=f"Layer by layer (prices: {report.prices.name})", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    table.add_column("reads")
    for column in ("spikes", "ACs", "MACs", "element-wise", "uJ"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in table_rows(report):
        counts = row.counts
        numbers = (counts["spikes"], counts["acs"], counts["macs"], row.elementwise)
        table.add_row(row.name, row.input, *(f"{n:,}" if n else "" for n in numbers), microjoules(row.energy_j))
    totals = report.total()
    numbers = (totals["spikes"], totals["acs"], totals["macs"], totals["adds"] + totals["muls"])
    table.add_section()
    table.add_row("total", "", *(f"{n:,}" for n in numbers), microjoules(report.energy_j()), style="bold")
    return table


def table_rows(report: EnergyReport) -> list[LayerRow]:
    """Rows for reading: convolutions, neurons and rows that are a block by themselves as they are; of other blocks the
    attention, sums and the like in one. Of what is no image's run, every node that does anything."""
    if report.run.extent:
        return [
            row for row in report.rows if row.elementwise or any(row.counts[key] for key in ("macs", "acs", "spikes"))
        ]
    rows: list[LayerRow] = []
    for block, members in groupby(report.rows, key=lambda row: row.block.removesuffix(".attn")):
        group = list(members)
        own = [row for row in group if row.block == block]
        alone = [row for row in own if row.kind in ("conv", "neuron", "windowattention") or row.name == block]
        rest = [
            row for row in group if row not in alone and (row.elementwise or row.counts["macs"] or row.counts["acs"])
        ]
        rows.extend(alone)
        if rest:
            name = f"{block}: attention and sums" if any(row.block != block for row in rest) else f"{block}: the rest"
            energy = sum(row.energy_j for row in rest)
            counts = sum_counts(row.counts for row in rest)
            rows.append(LayerRow(f"{name} ({len(rest)})", block, "group", "analog", "", counts, energy))
    return rows


def part_table(report: EnergyReport) -> Table:
    """Energy by kind of operation, and by where it happens."""
    totals, prices = report.total(), report.prices.prices
    table = Table(title="By part", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("part")
    table.add_column("operations", justify="right")
    table.add_column("uJ", justify="right")
    table.add_column("share", justify="right")
    whole = report.energy_j()
    parts = (
        ("analog MACs", "mac", "macs"),
        ("spike ACs", "ac", "acs"),
        ("signs (spikes)", "spike", "spikes"),
        ("neuron updates", "neuron_update", "neuron_updates"),
    )
    for label, price, count in parts:
        if price in prices:
            energy = prices[price].energy_j * totals[count]
            table.add_row(label, f"{totals[count]:,}", f"{energy * 1e6:,.1f}", share(energy, whole))
        elif price != "neuron_update" and totals[count]:
            table.add_row(label, f"{totals[count]:,}", "unpriced", "")
    table.add_section()
    for place, label in (("neurocore", "on neurocores"), ("host", "on the host processor")):
        placed = [row.energy_j for row in report.rows if row.placement == place]
        if placed:
            table.add_row(label, "", f"{sum(placed) * 1e6:,.1f}", share(sum(placed), whole))
    table.add_section()
    for label, value in rates(report):
        table.add_row(label, "", "", value)
    return table


def rates(report: EnergyReport) -> list[tuple[str, str]]:
    """What is no sum, by name: how often neurons fire and synapses are used, and how much of the image gates open."""
    found = [(f"open: {gate}", f"{part:.2%}") for gate, part in report.open_shares.items()]
    if any(layer.kind == "neuron" for layer in report.facts):
        found.insert(0, ("firing rate (spikes per neuron and step)", f"{report.firing_rate:.2%}"))
    if report.spikes_per_synapse is not None:
        found.insert(1, ("spikes per synapse and inference", f"{report.spikes_per_synapse:.4f}"))
    return found


def reference_table(report: EnergyReport) -> Table:
    """The exact figure beside what other ways of counting say."""
    table = Table(title="Beside it", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("how it is counted")
    table.add_column("uJ", justify="right")
    table.add_column("exact / this", justify="right")
    exact = report.energy_j()
    table.add_row("[bold]exact: operands counted[/bold]", f"[bold]{exact * 1e6:,.1f}[/bold]", "")
    for label, energy in report.references.items():
        table.add_row(label, f"{energy * 1e6:,.1f}", f"{exact / energy:.2f}x" if energy else "")
    if report.break_even is not None:
        ratio = report.break_even
        verdict = f"AC at most {ratio:.3g} of a MAC" if ratio > 0 else "never: its MACs exceed the ANN's"
        table.add_row("breaks even with that ANN (spikes not priced)", verdict, "")
    return table


def price_list_table(rows: list[dict[str, Any]]) -> Table:
    """The same counts under every price list."""
    table = Table(title="The same counts under every price list (uJ)", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("list")
    for column in ("MAC, AC, spikes", "+ element-wise", "+ memory"):
        table.add_column(column, justify="right")
    table.add_column("not priced")
    for row in rows:
        numbers = (row["energy_uj"], row["with_elementwise_uj"], row["with_memory_uj"])
        cells = ["-" if number is None else f"{number:,.1f}" for number in numbers]
        table.add_row(row["title"], *cells, ", ".join(f"{n:,} {k}" for k, n in row["unpriced"].items()))
    return table


def print_summary(console: Console, runs: list[dict[str, Any]]) -> None:
    """One line per image of a folder, as `EnergyReport.to_dict` has it, and the mean."""
    table = Table(title="Summary", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("image")
    for column in ("executed", "tiles", "spikes", "ACs", "MACs", "rate", "per synapse", "open", "uJ"):
        table.add_column(column, justify="right")
    for run in runs:
        totals = run["totals"]
        numbers = [f"{totals[key]:,}" for key in ("spikes", "acs", "macs")]
        size, rate, energy = "x".join(map(str, run["executed_size"])), run["firing_rate"], totals["energy_uj"]
        used, is_open = _synapses_and_gate(run["spikes_per_synapse"], run.get("gates_open", {}))
        table.add_row(run["image"], size, str(run["tiles"]), *numbers, f"{rate:.2%}", used, is_open, f"{energy:,.1f}")
    console.print(table)
    mean = summary_dict(runs)
    used, is_open = _synapses_and_gate(mean["mean_spikes_per_synapse"], mean["mean_gates_open"])
    parts = [f"energy {mean['mean_energy_uj']:,.1f} uJ"]
    parts += [f"{used} spikes per synapse and inference"] if used else []
    parts += [f"{is_open} of the gate open"] if is_open else []
    console.print(f"{len(runs)} images, mean {', '.join(parts)}", highlight=False)


def _synapses_and_gate(used: float | None, gates: Mapping[str, float]) -> tuple[str, str]:
    """Spikes per synapse, and how much of the first gate was open; nothing of a network that has none."""
    return "" if used is None else f"{used:.4f}", next((f"{part:.2%}" for part in gates.values()), "")


def microjoules(joules: float) -> str:
    """Microjoules with three decimals, or three digits of what is less than a nanojoule."""
    value = joules * 1e6
    return f"{value:,.3f}" if value >= 0.001 or not value else f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """Of the whole, in percent; nothing of nothing."""
    return f"{part / whole:.1%}" if whole else ""
