"""Writes the report of a run as one HTML file that needs nothing else: data, pictures, scripts and charts inside.

In: a report as JSON holds it, what all models say of it, pictures where there are some. Out: the file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from esdnet.command.writing import write_text
from hw_sim.backends.spike_maps import MOST
from hw_sim.pricing.all_models import AllModels
from hw_sim.pricing.prices import available, load_prices
from hw_sim.report.comparison import Comparison
from hw_sim.report.comparison_tables import FORMS, TITLES, ratio_words
from hw_sim.report.energy_report import price_table
from hw_sim.report.page.comparison import comparison_data
from hw_sim.report.page.layers import Report, blocks_of, layers_of, pieces_of, rates_of
from hw_sim.report.page.layout import draw
from hw_sim.report.page.models import section, tables_of
from hw_sim.report.page.pictures import Pictures, picture_uri, spike_pictures

FOLDER = Path(__file__).parent
PAGE_BYTES = 5_000_000  # above that, maps of spikes are made coarser
LEAST = 48  # cells along a side that a map keeps, however large the page
SCRIPTS = (  # in this order; a section that is left out has none
    "totals", "layer", "pictures", "spikes", "graph", "blocks", "rates", "table", "layer_table", "models",
)  # fmt: skip


def write_report(path: Path, report: Report, found: AllModels, command: str, pictures: Pictures | None = None) -> None:
    """command: the one that made the report, as it was typed."""
    data, most = page_data(report, found), MOST
    page = render_report(report, found, command, data, pictures, most)
    while pictures and len(page) > PAGE_BYTES and most > LEAST:
        most //= 2
        page = render_report(report, found, command, data, pictures, most)
    write_text(path, page)


def render_report(
    report: Report, found: AllModels, command: str, data: dict[str, Any], pictures: Pictures | None, most: int
) -> str:
    """The page. most: cells along a side of a map of spikes."""
    spikes = spike_pictures(pictures, _channels(report), most) if pictures else None
    sections = {"pictures": pictures, "spikes": spikes, "graph": data["graph"], "rates": data["rates"]}
    page = _environment().get_template("report.html.j2")
    return page.render(
        report=report,
        command=command,
        data=data | {"spikes": spikes},
        price_rows=price_table(report["totals"], [load_prices(name) for name in available()]),
        images=pictures and {"before": picture_uri(pictures.image), "after": picture_uri(pictures.output)},
        models=section(found),
        scripts=[name for name in SCRIPTS if sections.get(name, True)],
    )


def write_comparison(path: Path, found: Comparison, command: str) -> None:
    """Two runs side by side, as one page."""
    counts = [
        (TITLES[key], *(FORMS.get(key, "{:,}").format(n) for n in pair), ratio_words(*pair))
        for key, pair in found.totals().items()
        if key != "energy_uj"
    ]
    names = [f"{run['network']}, {run.get('image', '')}, {run.get('precision', '')}" for run in found.runs]
    page = _environment().get_template("compare.html.j2").render(
        found=found, command=command, data=comparison_data(found), count_rows=counts, names=names
    )  # fmt: skip
    write_text(path, page)


def page_data(report: Report, found: AllModels) -> dict[str, Any]:
    """What the scripts read, but for pictures."""
    layers = layers_of(report)
    pieces = pieces_of(layers)
    return {
        "layers": layers,
        "blocks": blocks_of(layers),
        "graph": draw(layers),
        "pieces": pieces if len(pieces) < len(layers) else None,
        "piece_graph": draw(pieces),
        "rates": rates_of(report),
        "prices": tables_of(found, report),
    }


def _channels(report: Report) -> dict[str, int]:
    return {facts["name"]: facts["output_shape"][0] for facts in report["facts"]}


@cache
def _environment() -> Environment:
    """The templates: what is undefined is an error, what is text is escaped; JSON without blanks."""
    environment = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["asset"] = lambda name: Markup((FOLDER / "assets" / name).read_text(encoding="utf-8"))
    environment.filters |= {"uj": lambda uj: f"{uj:,.1f}", "count": compact}
    return environment


def compact(number: int) -> str:
    """Three digits and the letter of a thousand's power."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}"
    return str(number)
