"""The league: every network is trained for its time and scored, once; what was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import league_figure as figure
from benchmarks.league import main
from esdnet.networks.architectures import preset
from esdnet.networks.checkpoint import load_network
from esdnet.training.loop import Trainer

NETWORKS = ["tiny_nafnet", "tiny_dual_stage"]


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    data = ["--data", str(pairs), "--held-out", "1", "--scored", f"pairs={pairs}", "--batch", "1"]
    return ["--networks", *NETWORKS, *data, "--hours", "0.00003", "--out", str(out), *more]


@pytest.mark.slow
def test_all_are_trained_for_the_same_time_and_scored_once(pairs: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out, run = tmp_path / "league", Trainer.run
    with monkeypatch.context() as patch:  # stopped before the second network begins to train
        patch.setattr(Trainer, "run", lambda self: "nafnet" in str(self.out) and run(self))
        assert main(command(pairs, out)) == 2
    assert "tiny_dual_stage: stopped at step 0; the same command continues" in capsys.readouterr().err
    first = (out / "tiny_nafnet" / "last.pt").read_bytes()
    assert main(command(pairs, out)) == 0
    assert (out / "tiny_nafnet" / "last.pt").read_bytes() == first
    text = (out / "league.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    league = json.loads((out / "league.json").read_text())
    rows, shipped = league["networks"], league["shipped"]
    assert [row["name"] for row in rows] == NETWORKS
    assert {"small_released", "small_spike_driven", "small_dual_stage"} <= {row["name"] for row in shipped}
    for row, line in zip(rows, text.splitlines()[2:], strict=False):
        network = load_network(out / row["name"] / "ema.pt")
        assert network.config == preset(row["name"])
        assert row["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert row["steps"] == max(1, round(0.00003 * 3600 / row["seconds_per_step"]))
        assert row["cpu_seconds"] > 0
        assert f"{row['scores']['pairs']['psnr']:.2f} / {row['scores']['pairs']['ssim']:.3f}" in line
        assert f"{row['costs']['macs']:,}" in line
    spiking = next(row for row in shipped if row["name"] == "small_spike_driven")
    assert spiking["costs"]["energy_uj"]["paper, as its source states it"] == pytest.approx(1555, abs=1)  # as in README
    assert spiking["costs"]["energy_uj"]["odin, as its source states it"] is None  # its first convolution multiplies
    assert "| `odin` | as its source states it | no price |" in text
    drawn = tmp_path / "league.png"
    assert figure.main([str(out / "league.json"), "--score", "pairs", "-o", str(drawn)]) == 0
    with Image.open(drawn) as picture:
        assert picture.size == (1210, 770)


def test_the_front_is_of_what_nothing_beats() -> None:
    points = [(1.0, 30.0), (2.0, 31.0), (2.0, 29.0), (3.0, 31.0), (1.0, 30.0)]
    front = [point for point in points if not any(figure.beats(other, point) for other in points)]
    assert front == [(1.0, 30.0), (2.0, 31.0), (1.0, 30.0)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--networks", "huge"], "preset 'huge' is unknown"),
        (["--hours", "0"], "--hours 0.0: expected more than 0"),
        (["--scored", "pairs"], "--scored pairs: expected NAME=DIR"),
        (["--scored", "a=no/such"], "no/such: no such folder"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], message: str, pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path / "league", *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "league").exists()


@pytest.mark.slow
def test_another_time_than_planned_is_refused(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--networks", "tiny_nafnet")) == 0
    assert main(command(pairs, tmp_path, "--networks", "tiny_nafnet", "--hours", "1")) == 2
    assert "its training was planned for 3e-05 hours, found --hours 1.0" in capsys.readouterr().err
