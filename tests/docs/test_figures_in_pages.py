"""Figures that README and docs show are those that the commands beside them print.

Multiplications exactly; what depends on spikes within 1 %: another processor may add up in another order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import energy_study
from hw_sim import energy
from hw_sim.pricing.all_models import price_all

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPIKES_VARY = 0.01

pytestmark = pytest.mark.slow


def numbers(line: str) -> list[float]:
    """All numbers of a line, thousands separated by commas or not."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", line)]


def line_with(text: str, start: str) -> str:
    found = [line for line in text.splitlines() if line.strip().startswith(start)]
    assert found, f"no line begins with {start!r}"
    return found[0]


def test_the_energy_page_shows_what_the_study_prints(capsys):
    assert energy_study.main([]) == 0
    page = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    shown = [line for line in page.splitlines() if line.startswith("| ")]
    start = shown.index(printed[0])
    for expected, line in zip(printed, shown[start:], strict=False):
        assert line.split("|")[1] == expected.split("|")[1]
        assert numbers(line) == pytest.approx(numbers(expected), rel=SPIKES_VARY), line


def test_the_energies_in_the_readme_are_the_studys(capsys):
    assert energy_study.main([]) == 0
    printed = capsys.readouterr().out
    for name in ("released, dim 16", "spike-driven, dim 16", "released, dim 48", "spike-driven, dim 48"):
        rows = [line.split("|") for line in printed.splitlines() if line.startswith(f"| {name} |")]
        energies = [numbers(row[2])[0] for row in rows[1:4]]  # paper, Horowitz float32 and int8, after the operations
        shown = next(line for line in README.splitlines() if line.replace("*", "").startswith(f"| {name} |"))
        assert numbers("|".join(shown.split("|")[3:])) == pytest.approx(energies, rel=SPIKES_VARY), shown


@pytest.mark.parametrize(
    ("image", "precision", "start"),
    [("rainy.png", "float32", "total "), ("rainy_64.png", "float64", "simulator, float64")],
)
def test_the_output_in_the_readme_is_what_the_demo_prints(image, precision, start, tmp_path):
    out = tmp_path / "energy.json"
    path = ROOT / "docs" / "sample" / image
    assert energy.main(["--image", str(path), "--precision", precision, "--json", str(out)]) == 0
    totals = json.loads(out.read_text())["totals"]
    shown = numbers(line_with(README, start).replace("float64", ""))
    assert shown[2:4] == [totals["macs"], totals["elementwise"]]
    assert shown[:2] == pytest.approx([totals["spikes"], totals["acs"]], rel=SPIKES_VARY)


def test_the_operations_in_the_questions_are_those_of_the_networks(tmp_path):
    page = " ".join((ROOT / "docs" / "faq.md").read_text(encoding="utf-8").split())
    share, acs, taps, every, macs = numbers(re.search(r"photo (.*? MACs)", page)[1])
    totals = {}
    for name in ("small_spike_driven", "small_dual_stage"):
        out = tmp_path / f"{name}.json"
        image = str(ROOT / "docs" / "sample" / "rainy.png")
        assert energy.main(["--image", image, "--checkpoint", name, "--json", str(out)]) == 0
        totals[name] = json.loads(out.read_text())["totals"]
    spiking = totals["small_spike_driven"]
    assert taps == every == round(spiking["dense_taps"] / 1e9, 2)
    assert acs == pytest.approx(spiking["acs"] / 1e9, rel=SPIKES_VARY)
    assert share == pytest.approx(100 * spiking["acs"] / spiking["dense_taps"], rel=SPIKES_VARY)
    assert macs == round(totals["small_dual_stage"]["macs"] / 1e9, 2)


GROUPS = {  # rows of the page on gates -> whether a model and how it is asked belong there
    "arithmetic": lambda row: not row.model.name.startswith("lemaire") and "memory" not in row.variant,
    "words moved too": lambda row: row.variant == "with element-wise work and memory",
    "each access": lambda row: row.model.name.startswith("lemaire") and "once" not in row.variant.replace("once a", ""),
    "the same, and the ANN": lambda row: row.variant == "the ANN reads weights and inputs once",
}


def test_what_a_gate_is_worth_at_equal_quality(tmp_path):
    reports = {}
    for name in ("tiny_dual_stage", "small_gated"):
        out = reports[name] = tmp_path / f"{name}.json"
        image = ROOT / "docs" / "sample" / "rainy.png"
        assert energy.main(["--image", str(image), "--checkpoint", name, "--json", str(out)]) == 0
    gated = json.loads(reports["small_gated"].read_text())
    for page in ("README.md", "docs/gated.md", "esdnet/checkpoints/small_gated.md"):
        (shown,) = set(re.findall(r"\b0\.13\d\b", (ROOT / page).read_text(encoding="utf-8")))
        assert gated["spikes_per_synapse"] == pytest.approx(float(shown), rel=SPIKES_VARY), page
    rows = price_all(gated, str(reports["tiny_dual_stage"])).rows
    answered = [row for row in rows if row.against_reference.ratio]
    page = (ROOT / "docs" / "gated.md").read_text(encoding="utf-8").split("**At equal quality**")[1]
    found = 0
    for name, belongs in GROUPS.items():
        ratios = sorted(row.against_reference.ratio for row in answered if belongs(row))
        _, _, count, said, _ = line_with(page, f"| {name}").split("|")
        assert int(count) == len(ratios)
        assert ("saves" in said) == (ratios[-1] < 1)
        assert ("costs more" in said) == (ratios[0] > 1)
        assert numbers(said) == pytest.approx([ratios[0], ratios[-1]], rel=0.05), name  # two digits are shown
        found += len(ratios)
    wins = sum(row.against_reference.ratio < 1 for row in answered)
    assert (wins, found) == (7, len(answered)) == (7, 19)
    prices = {row.model.name: 1e12 * (row.against_reference.break_even_mac_j or 0) for row in rows}
    assert f"{prices['tianjic']:.1f} pJ (Tianjic) to {prices['loihi1']:.0f} pJ (Loihi 1)" in page
