"""Draws energy over NAFNet's under every published energy model, for the spiking networks at both widths.

python docs/figures/energy_models.py [-o OUT.png]   prices the recorded counts of benchmarks/energy_models.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import energy_models  # noqa: E402
from hw_sim.pricing.counted import nafnet_on  # noqa: E402
from hw_sim.pricing.load import available_models, load_model  # noqa: E402
from hw_sim.pricing.verdicts import judge  # noqa: E402

MARKS = {  # colours that every colour vision tells apart; filled at the paper's width
    "released, dim 16": {"color": "#d55e00", "fillstyle": "none"},
    "released, dim 48": {"color": "#d55e00"},
    "spike-driven, dim 16": {"color": "#0072b2", "fillstyle": "none"},
    "spike-driven, dim 48": {"color": "#0072b2"},
    "gated, dim 16": {"color": "#009e73", "fillstyle": "none"},
    "gated, dim 48": {"color": "#009e73"},
}


def main(argv: list[str] | None = None) -> int:
    """Price and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_suffix(".png"))
    draw(ratios()).savefig(parser.parse_args(argv).out, dpi=100)
    return 0


def ratios() -> dict[str, dict[str, float]]:
    """By row, model and how it is asked, and by network; rows that have no answer are left out."""
    models = [load_model(name) for name in available_models()]
    nafnet = nafnet_on((energy_models.SIZE, energy_models.SIZE)).layers
    found: dict[str, dict[str, float]] = {}
    for network in energy_models.read_record(energy_models.RECORD):
        for row in judge(network.images[0], models, nafnet):
            if row.against_reference and row.against_reference.ratio:
                found.setdefault(f"{row.model.name}: {row.variant}", {})[network.name] = row.against_reference.ratio
    return found


def draw(rows: dict[str, dict[str, float]]) -> Figure:
    """A mark for each network and row, on a log scale."""
    figure = Figure(figsize=(9, 0.25 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    for name, mark in MARKS.items():
        axes.plot([row[name] for row in rows.values()], places, "o", label=name, markersize=6, **mark)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(places, list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", color="#e8e8e8")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("energy / NAFNet's (width 32), 256x256; less than 1 saves")
    axes.legend(ncols=3, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.35, 1))
    return figure


if __name__ == "__main__":
    raise SystemExit(main())
