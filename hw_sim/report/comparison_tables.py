"""Two reports side by side on a terminal: what was run, totals, layers, every model."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hw_sim.report.comparison import Comparison, ModelPair, Pair
from hw_sim.report.model_tables import at_least, uj

TITLES = {
    "spikes": "spikes", "acs": "ACs", "macs": "MACs", "nonzero_macs": "MACs not by 0", "elementwise": "element-wise",
    "neuron_updates": "neuron updates", "firing_rate": "spikes per neuron and step",
    "spikes_per_synapse": "spikes per synapse and inference", "energy_uj": "energy, uJ",
}  # fmt: skip
FORMS = {"firing_rate": "{:.2%}", "spikes_per_synapse": "{:.4f}", "energy_uj": "{:,.1f}"}  # of others {:,}


def print_comparison(console: Console, found: Comparison) -> None:
    """Everything; A is the first run, B the second."""
    console.print(_run_table(found))
    if not found.same_input:
        console.print("[bold]They did not run on the same input: a difference may be the input's.[/bold]")
    console.print(_total_table(found))
    console.print(_layer_table(found))
    console.print(_model_table(found))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _run_table(found: Comparison) -> Table:
    table = _table("What was run", "", "A", "B", "")
    for title, a, b in found.run_rows():
        table.add_row(title, a, b, "" if a == b else "differs")
    return table


def _total_table(found: Comparison) -> Table:
    table = _table(f"Totals (prices: {found.prices.name})", "", "A", "B", "B / A")
    for key, (a, b) in found.totals().items():
        form = FORMS.get(key, "{:,}")
        table.add_row(TITLES[key], form.format(a), form.format(b), ratio_words(a, b))
    return table


def _layer_table(found: Comparison) -> Table:
    """Layers that do synaptic work or fire in one of both; where one lacks the layer its cells are dots."""
    shown = [pair for pair in found.pairs if _works(pair)]
    wheres = [pair.where for pair in shown]
    counts = f"{wheres.count('both')} in both, {wheres.count('a')} in A only, {wheres.count('b')} in B only"
    columns = [f"{title} {side}" for title in ("spikes", "ACs", "MACs", "uJ") for side in "AB"]
    table = _table(f"Layer by layer, by name: {counts}", "layer", *columns, "B / A")
    for pair in shown:
        cells = [_count(layer, key) for key in ("spikes", "acs", "macs") for layer in (pair.first, pair.second)]
        energies = [
            uj(energy * 1e-6) if layer else "·"
            for layer, energy in zip((pair.first, pair.second), pair.energies_uj, strict=True)
        ]
        table.add_row(pair.name, *cells, *energies, ratio_words(*pair.energies_uj) if pair.where == "both" else "")
    return table


def _works(pair: Pair) -> bool:
    return any(layer and (layer["spikes"] or layer["acs"] or layer["macs"]) for layer in (pair.first, pair.second))


def _count(layer: Any, key: str) -> str:
    return "·" if layer is None else f"{layer[key]:,}" if layer[key] else ""


def _model_table(found: Comparison) -> Table:
    table = _table("Under every energy model (uJ); '>': something in it has no price", "model", "A", "B", "B / A")
    for pair in found.models:
        a, b = pair.energies
        table.add_row(f"{pair.title}, {pair.variant}", at_least(a), at_least(b), model_ratio(pair))
    return table


def model_ratio(pair: ModelPair) -> str:
    """B over A; nothing where one is but a lower bound."""
    return "no answer" if pair.ratio is None else _few(pair.ratio)


def ratio_words(a: float, b: float) -> str:
    """B over A."""
    return _few(b / a) if a else "" if not b else "A has none"


def _few(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"
