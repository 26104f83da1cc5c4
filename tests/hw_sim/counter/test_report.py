"""What a counted run is shown as: a data frame, and a table in a notebook; the same numbers in both."""

from __future__ import annotations

import json
import re

import pytest
import snntorch
import torch
from torch import nn

import hw_sim
from esdnet.command import command_line


class Net(nn.Module):
    """A network of which some layers add and others multiply."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(8, 6), snntorch.Leaky(beta=0.5, threshold=0.1), nn.Linear(6, 3)

    def forward(self, frames):
        mem, total = self.lif.init_leaky(), 0
        for frame in frames:
            spikes, mem = self.lif(self.fc1(frame), mem)
            total = total + self.fc2(spikes)
        return total


@pytest.fixture
def report() -> hw_sim.Report:
    torch.manual_seed(0)
    found = hw_sim.count(Net().eval(), torch.rand(5, 1, 8))
    assert found.totals["acs"]
    assert found.totals["macs"] == 5 * 48
    return found


def test_it_says_in_a_line_what_it_holds(report):
    totals = report.totals
    numbers = f"{totals['spikes']} spikes, {totals['acs']} ACs, {totals['macs']} MACs"
    assert repr(report) == f"<Report of Net: {len(report.layers)} layers, {numbers}>"


def test_a_data_frame_has_a_row_for_each_layer_and_every_count(report):
    pytest.importorskip("pandas")
    frame = report.to_dataframe("horowitz_fp32")
    assert list(frame.index) == [layer.name for layer in report.layers]
    assert frame.loc["fc2", ["kind", "reads"]].tolist() == ["linear", "spike"]
    assert {count: int(frame[count].sum()) for count in report.totals} == report.totals
    assert frame["energy_uj"].sum() == pytest.approx(report.to_dict("horowitz_fp32")["totals"]["energy_uj"])
    with pytest.raises(hw_sim.UserError, match=r"^price list 'free' is unknown"):
        report.to_dataframe("free")


def test_without_pandas_it_is_said(report, monkeypatch):
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    with pytest.raises(hw_sim.UserError, match=r"^to_dataframe needs pandas, not installed here: pip install"):
        report.to_dataframe()


def test_a_notebook_shows_every_layer_and_the_totals(report):
    shown = report._repr_html_()
    cells = [re.sub("<[^>]*>", " ", line).split() for line in re.findall("<tr>(.*?)</tr>", shown)]
    assert [line[0] for line in cells[1:]] == [*(layer.name for layer in report.layers), "total"]
    totals, uj = report.totals, report.to_dict()["totals"]["energy_uj"]
    numbers = [totals["spikes"], totals["acs"], totals["macs"], totals["adds"] + totals["muls"]]
    assert cells[-1][1:] == [*(f"{number:,}" for number in numbers), f"{uj:.3f}", "100.0%"]
    assert sum(float(line[-1].rstrip("%")) for line in cells[1:-1]) == pytest.approx(100, abs=0.3)


def test_names_are_text_and_what_is_not_counted_is_said():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    shown = hw_sim.count(Odd(), torch.rand(2, 3, 3), name="<script>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "NOT COUNTED, no rule: " in shown


def test_the_page_is_that_of_the_command(report, tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    page = tmp_path / "report.html"
    report.to_html(page, "horowitz_fp32")
    found = re.search('<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    layers = json.loads(found[1])["layers"]
    assert [layer["name"] for layer in layers] == [layer.name for layer in report.layers]
    assert sum(layer["acs"] for layer in layers) == report.totals["acs"]
    with pytest.raises(hw_sim.UserError, match=r"^to_html .*: there is no folder"):
        report.to_html(tmp_path / "no" / "report.html")
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    with pytest.raises(hw_sim.UserError, match=r"^to_html needs jinja2"):
        report.to_html(tmp_path / "other.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_layer_graph_is_not_a_module(spike_driven_network):
    with pytest.raises(hw_sim.UserError, match=r"^count: found a Network, expected a torch module, or a function that"):
        hw_sim.count(spike_driven_network, torch.rand(1, 3, 16, 16))
