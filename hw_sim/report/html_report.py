"""The energy report as one HTML file that needs nothing else: pictures, charts and tables embedded."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esdnet.command.writing import write_text
from hw_sim.pricing.all_models import AllModels
from hw_sim.pricing.prices import available, load_prices
from hw_sim.report.console import table_rows
from hw_sim.report.energy_report import EnergyReport, assumptions, price_table
from hw_sim.report.model_page import open_templates, section
from hw_sim.report.plots import chart_png, charts_of


def write_html(
    path: Path,
    report: EnergyReport,
    pictures: Mapping[str, NDArray[np.float64]],
    models: AllModels | None = None,
) -> None:
    """Write the report with pictures, (H, W, 3) in [0, 1], under their names, and all models where asked for."""
    text = open_templates().get_template("report.html.j2").render(
        report=report,
        run=report.run,
        totals=report.total(),
        rows=table_rows(report),
        price_rows=price_table(report, [load_prices(name) for name in available()]),
        assumptions=assumptions(report),
        pictures={name: _picture(picture) for name, picture in pictures.items()},
        charts={name.replace("_", " "): _data_uri(chart_png(figure)) for name, figure in charts_of(report).items()},
        models=section(models) if models else None,
    )  # fmt: skip
    write_text(path, text)


def _picture(array: NDArray[np.float64]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.floor(np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)).save(buffer, "PNG")
    return _data_uri(buffer.getvalue())


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
