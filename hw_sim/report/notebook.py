"""The energy report as a notebook shows it: the table layer by layer, in HTML without scripts.

In: an EnergyReport. Out: HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from hw_sim.report.console import microjoules, share, table_rows
from hw_sim.report.energy_report import EnergyReport

COLUMNS = ("layer", "reads", "spikes", "ACs", "MACs", "element-wise", "uJ", "share of uJ")
HEIGHT = "28em"  # of a long table, which is scrolled


def html_table(report: EnergyReport, notes: Iterable[str]) -> str:
    """What ran, a row for each layer that did something, the totals, and what must be known to read them."""
    run, total_j = report.run, report.energy_j()

    def row(name: str, reads: str, counts: dict[str, int], energy_j: float) -> list[str]:
        numbers = (counts["spikes"], counts["acs"], counts["macs"], counts["adds"] + counts["muls"])
        shown = (f"{number:,}" if number else "" for number in numbers)
        return [name, reads, *shown, microjoules(energy_j), share(energy_j, total_j)]

    rows = [row(layer.name, layer.input, layer.counts, layer.energy_j) for layer in table_rows(report)]
    body = "".join(_line("td", cells) for cells in rows)
    foot = _line("th", row("total", "", report.total(), total_j))
    return (
        f"<p><b>{escape(run.network)}</b>, {escape(run.image)}; prices: {escape(report.prices.name)}</p>"
        f'<div style="max-height:{HEIGHT};overflow:auto"><table><thead>{_line("th", COLUMNS)}</thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
        + "".join(f"<p>{escape(note)}</p>" for note in notes)
    )


def _line(tag: str, cells: Sequence[str]) -> str:
    """A row; text to the left, numbers to the right."""
    sides = ["left", "left", *["right"] * (len(cells) - 2)]
    inner = (
        f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, cells, strict=True)
    )
    return f"<tr>{''.join(inner)}</tr>"
