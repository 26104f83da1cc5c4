from __future__ import annotations

import json

import pytest
import torch

from benchmarks import energy_study
from benchmarks.energy_study import _blocks_per_stage, _place, counts_at_rates, layer_rates, main
from benchmarks.paper_tables import NAFNET_UJ
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph.counting import OF_VALUES
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.report.energy_report import sum_counts

SPENT = ("spikes", "acs", "events_in")


@pytest.fixture
def small_study(monkeypatch):
    """The study at 32x32, with the tiny presets in the places of all others."""
    monkeypatch.setattr(energy_study, "SIZE", 32)
    kinds = {"released": ("tiny", "tiny"), "spike-driven": ("tiny_spike_driven", "tiny_spike_driven")}
    monkeypatch.setattr(energy_study, "KINDS", kinds)


@pytest.fixture
def checkpoints(tmp_path):
    paths = []
    for name in ("tiny", "tiny_spike_driven"):
        torch.manual_seed(3)
        model = ESDNet(preset(name)).train()
        with torch.no_grad():
            for _ in range(5):
                model(torch.rand(2, 3, 32, 32))
        save_checkpoint(tmp_path / f"{name}.pt", model.eval())
        paths.append(tmp_path / f"{name}.pt")
    return paths


@pytest.mark.parametrize("kind", ["tiny_spike_driven", "tiny_gated"])
def test_a_network_at_its_own_rates_costs_what_it_cost(small_study, kind):
    torch.manual_seed(0)
    model = ESDNet(preset(kind)).eval()
    if model.gate is not None:
        model.gate.decide.bias.data.fill_(0.1)  # so that it is open here and shut there
    network = lower(model)
    image = torch.rand(3, 32, 32).numpy()
    run = simulator.run(network, image)
    assert all(0 < gate.mean() < 1 for gate in list(run.gates.values())[:1])
    ran = run.counts
    again = counts_at_rates(network, layer_rates(network, ran))
    expected, found = (sum_counts(one.totals() for one in counts.values()) for counts in (ran, again))
    assert expected["acs"] > 0
    for field, value in expected.items():  # spread evenly over the steps, a layer is off by half a spike a step
        allowed = 2 * len(network.nodes) if field in SPENT else 0
        assert field in OF_VALUES or abs(found[field] - value) <= allowed, field


def test_a_block_takes_its_rates_from_the_block_in_its_place():
    own = _blocks_per_stage({f"encoder_level3.{number}.residual.0.on": 0.0 for number in range(8)})
    trained = _blocks_per_stage({f"encoder_level3.{number}.residual.0.on": 0.0 for number in range(4)})
    places = [_place(f"encoder_level3.{number}.residual.0.on", own, trained) for number in range(8)]
    assert places == [f"encoder_level3.{number}.residual.0.on" for number in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert _place("down1_2.maxpool_conv.1", own, trained) == "down1_2.maxpool_conv.1"
    assert _place("reduce_chan_level2.1", {}, {}) == "reduce_chan_level2.1"


def test_every_price_list_has_its_table(small_study, checkpoints, tmp_path, capsys):
    released, spike_driven = map(str, checkpoints)
    out = tmp_path / "study.json"
    assert main(["--released", released, "--spike-driven", spike_driven, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    for name in ("paper", "horowitz_fp32", "horowitz_int8", "loihi1"):
        assert f"(`{name}`)" in text
    assert f"| {NAFNET_UJ:,.0f} |" in text
    rows = json.loads(out.read_text())["rows"]
    assert [row["trained"] for row in rows] == [True, False, True, False]
    assert rows[0]["latency"] > rows[2]["latency"] == 3  # only the weights over time wait for all four steps
    analog, spiking = rows[0]["totals"][0], rows[2]["totals"][0]
    assert analog["macs"] > 10 * spiking["macs"] > 0


def test_a_checkpoint_of_another_kind_is_refused(small_study, checkpoints, capsys):
    assert main(["--released", str(checkpoints[1]), "--spike-driven", str(checkpoints[1])]) == 2
    assert "expected the preset tiny" in capsys.readouterr().err
