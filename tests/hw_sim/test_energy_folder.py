"""energy.py on a folder: one report of all images, failures named, an earlier report gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from hw_sim import energy_image
from hw_sim.energy import main
from tests.gated import every_kind, gated_model, rainy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path, tiny_model):
    """A checkpoint, and a folder of two images of different brightness."""
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    (tmp_path / "in").mkdir()
    for name, grey in (("a", 0.5), ("c", 0.9)):
        save_image(tmp_path / "in" / f"{name}.png", np.full((16, 20, 3), grey))
    return tmp_path


def run(files: Path, *options: str) -> int:
    command = ["--image", str(files / "in"), "--checkpoint", str(files / "tiny.pt"), "--json", str(files / "e.json")]
    return main([*command, *options])


def report(files: Path) -> dict:
    return json.loads((files / "e.json").read_text())


def images(runs: list[dict]) -> list[str]:
    return [Path(run["image"]).name for run in runs]


@pytest.fixture
def priced(monkeypatch) -> list[str]:
    """The images that were really run, by name."""
    seen: list[str] = []
    price = energy_image.price_image

    def watched(job):
        seen.append(job.path.name)
        return price(job)

    monkeypatch.setattr(energy_image, "price_image", watched)
    return seen


def test_runs_and_a_summary(files, capsys):
    assert run(files, "--save-image", str(files / "out")) == 0
    content = report(files)
    assert images(content["runs"]) == ["a.png", "c.png"]
    runs, summary = content["runs"], content["summary"]
    energies = [run["totals"]["energy_uj"] for run in runs]
    assert energies[0] != energies[1]
    assert summary["images"] == 2
    assert summary["mean_energy_uj"] == pytest.approx(np.mean(energies))
    assert (summary["min_energy_uj"], summary["max_energy_uj"]) == (min(energies), max(energies))
    assert summary["mean_firing_rate"] == pytest.approx(np.mean([run["firing_rate"] for run in runs]))
    assert summary["mean_spikes_per_synapse"] == pytest.approx(np.mean([run["spikes_per_synapse"] for run in runs]))
    assert summary["mean_gates_open"] == {}
    assert summary["totals"]["spikes"] == runs[0]["totals"]["spikes"] + runs[1]["totals"]["spikes"]
    assert sorted(path.name for path in (files / "out").iterdir()) == ["a.png", "c.png"]
    captured = capsys.readouterr()
    assert "2 images, mean energy" in captured.out
    assert captured.err.splitlines()[-1].startswith("2 of 2 images in ")


def test_a_bad_file_among_others_is_named_and_the_rest_priced(files, capsys):
    (files / "in" / "b.png").write_text("hello")
    assert run(files) == 1
    content = report(files)
    assert images(content["runs"]) == ["a.png", "c.png"]
    assert content["summary"]["images"] == 2
    [failure] = content["failed"]
    assert Path(failure["name"]).name == "b.png"
    error = capsys.readouterr().err.splitlines()
    assert error[-2] == f"error: {failure['error']}"
    assert "b.png: cannot be read as an image" in error[-2]
    assert error[-1].startswith("2 of 3 images in ")


def test_if_all_fail_the_report_says_so(files, capsys):
    for path in (files / "in").iterdir():
        path.write_text("hello")
    assert run(files) == 1
    assert (report(files)["runs"], report(files)["summary"]) == ([], {"images": 0})
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_what_fails_for_every_image_is_one_line_and_status_2(files, capsys):
    assert run(files, "--device", "cuda") == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "no CUDA device is available" in error
    assert not (files / "e.json").exists()


def test_ctrl_c_keeps_what_was_done_and_skip_existing_goes_on(files, capsys, priced, monkeypatch):
    price = energy_image.price_image

    def interrupted(job):
        if job.path.name == "c.png":
            raise KeyboardInterrupt
        return price(job)

    with monkeypatch.context() as patch:
        patch.setattr(energy_image, "price_image", interrupted)
        assert run(files) == 130
    content = report(files)
    assert (images(content["runs"]), content["not_run"]) == (["a.png"], [str(files / "in" / "c.png")])
    assert "stopped after 1 of 2 images in " in capsys.readouterr().err
    priced.clear()
    assert run(files, "--skip-existing") == 0
    assert priced == ["c.png"]
    assert "1 of 2 images are in " in capsys.readouterr().err
    resumed = report(files)
    assert (images(resumed["runs"]), resumed["not_run"]) == (["a.png", "c.png"], [])
    assert run(files) == 0
    whole = report(files)
    for content in (resumed, whole):
        for each in content["runs"]:
            del each["seconds"]
    assert resumed == whole


def test_an_image_whose_png_is_missing_is_run_again(files, priced):
    save = ["--save-image", str(files / "out")]
    assert run(files, *save) == 0
    (files / "out" / "a.png").unlink()
    priced.clear()
    assert run(files, *save, "--skip-existing") == 0
    assert priced == ["a.png"]
    assert (files / "out" / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "float64"], "e.json was made with precision float32, found float64; give another --json"),
        (["--tile", "16"], "was made with tile None, found 16"),
        (["--prices", "horowitz_int8"], "was made with prices paper, found horowitz_int8"),
    ],
)
def test_a_report_made_with_other_settings_is_not_gone_on_with(files, capsys, options, message):
    assert run(files) == 0
    before = (files / "e.json").read_bytes()
    assert run(files, *options, "--skip-existing") == 2
    assert message in capsys.readouterr().err
    assert (files / "e.json").read_bytes() == before


def test_nor_one_of_other_weights_in_a_file_of_the_same_name(files, capsys, spike_driven_model, tiny_model):
    assert run(files) == 0
    state = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    changed = type(tiny_model)(tiny_model.config)
    changed.load_state_dict(state)
    changed.output[0].bias.data[0] += 1e-3
    save_checkpoint(files / "tiny.pt", changed)
    assert run(files, "--skip-existing") == 2
    assert "was made with network_sha256 " in capsys.readouterr().err


@pytest.mark.parametrize("content", ["hello", "[]", '{"runs": []}'])
def test_a_file_that_is_no_report_is_not_gone_on_with(files, capsys, content):
    (files / "e.json").write_text(content)
    assert run(files, "--skip-existing") == 2
    assert "error: --skip-existing: " in capsys.readouterr().err
    assert (files / "e.json").read_text() == content


def test_a_table_has_the_totals_and_is_gone_on_with(files, capsys, priced):
    """Of two images one is in the table already, and half of the other's row."""
    assert run(files) == 0
    rates = ("firing_rate", "spikes_per_synapse")
    expected = [run["totals"] | {name: run[name] for name in rates} for run in report(files)["runs"]]
    command = ["--image", str(files / "in"), "--checkpoint", str(files / "tiny.pt"), "--table", str(files / "t.csv")]
    assert main(command) == 0
    whole = (files / "t.csv").read_text()
    rows = list(csv.DictReader(whole.splitlines()))
    assert [Path(row["image"]).name for row in rows] == ["a.png", "c.png"]
    for row, totals in zip(rows, expected, strict=True):
        assert {name: float(row[name]) for name in totals} == totals
    lines = whole.splitlines(keepends=True)
    (files / "t.csv").write_text("".join(lines[:2]) + lines[2][:30])
    priced.clear()
    capsys.readouterr()
    assert main([*command, "--skip-existing"]) == 0
    assert priced == ["c.png"]
    assert "2 images, mean energy" in capsys.readouterr().out
    again = list(csv.DictReader((files / "t.csv").read_text().splitlines()))
    assert [{**row, "seconds": ""} for row in again] == [{**row, "seconds": ""} for row in rows]
    assert main(command) == 2
    assert "t.csv: is there already; --skip-existing goes on with it" in capsys.readouterr().err
    assert main([*command, "--skip-existing", "--precision", "float64"]) == 2
    assert "t.csv was made with precision float32, found float64" in capsys.readouterr().err
    assert main([*command[:-1], str(files / "u.csv"), "--json", str(files / "e.json")]) == 2
    assert "--table: has a row for each image of a folder, in the place of --json FILE" in capsys.readouterr().err


@every_kind
def test_of_a_gated_network_everything_says_how_much_was_open(files, capsys, kind):
    """JSON, summary and table, and a table that is gone on with."""
    save_checkpoint(files / "tiny.pt", gated_model(kind))
    save_image(files / "in" / "a.png", rainy().transpose(1, 2, 0))
    assert run(files) == 0
    content = report(files)
    opened = [run["gates_open"] for run in content["runs"]]
    assert opened[0] != opened[1]
    means = {gate: pytest.approx((share + opened[1][gate]) / 2) for gate, share in opened[0].items()}
    assert content["summary"]["mean_gates_open"] == means
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith(
        f" {content['summary']['mean_spikes_per_synapse']:.4f} spikes per synapse and inference,"
        f" {content['summary']['mean_gates_open']['gate.level1']:.2%} of the gate open"
    )
    command = ["--image", str(files / "in"), "--checkpoint", str(files / "tiny.pt"), "--table", str(files / "t.csv")]
    for options in ([], ["--skip-existing"]):
        assert main([*command, *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == said
    rows = list(csv.DictReader((files / "t.csv").read_text().splitlines()))
    assert [{gate: float(row[f"open: {gate}"]) for gate in opened[0]} for row in rows] == opened


def test_a_table_of_a_version_that_counted_less_is_not_gone_on_with(files, capsys):
    command = ["--image", str(files / "in"), "--checkpoint", str(files / "tiny.pt"), "--table", str(files / "t.csv")]
    assert main(command) == 0
    text = (files / "t.csv").read_text().replace("spikes_per_synapse", "something")
    (files / "t.csv").write_text(text)
    assert main([*command, "--skip-existing"]) == 2
    assert "error: --table: an earlier version wrote it and counted less" in capsys.readouterr().err
    assert (files / "t.csv").read_text() == text


@pytest.mark.slow
def test_totals_do_not_hang_on_who_does_it(files, capsys):
    """1, 2 and 4 processes, and 2 of which one is killed; one image cannot be read."""
    rng = np.random.default_rng(0)
    for number in range(6):
        save_image(files / "in" / f"{number}.png", rng.random((24, 20, 3)))
    (files / "in" / "bad.png").write_text("hello")
    found = {}
    for workers in ("1", "2", "4"):
        assert run(files, "--workers", workers, "--save-image", str(files / workers)) == 1
        content = report(files)
        assert [Path(failure["name"]).name for failure in content["failed"]] == ["bad.png"]
        found[workers] = [{**run, "seconds": 0} for run in content["runs"]], content["summary"]
        for name in ("a", "0", "5"):
            assert (files / workers / f"{name}.png").read_bytes() == (files / "1" / f"{name}.png").read_bytes()
    assert found["1"] == found["2"] == found["4"]
    assert len(found["1"][0]) == 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("victim", ["worker", "command"])
def test_killed_no_image_is_lost_or_counted_twice(files, victim):
    """kill -9 of one of two workers, whose image is done again; or of the command, which is gone on with."""
    rng = np.random.default_rng(0)
    for number in range(12):
        save_image(files / "in" / f"{number:02}.png", rng.random((64, 64, 3)))
    table = files / "t.csv"
    options = ["--checkpoint", str(files / "tiny.pt"), "--device", "cpu", "--precision", "float64"]
    command = [sys.executable, "-m", "hw_sim.energy", "--image", str(files / "in"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shared = [*command, "--workers", "2", "--table", str(table)]
    with subprocess.Popen(shared, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment) as process:
        while not table.exists() or len(table.read_text().splitlines()) < 4:
            time.sleep(0.02)
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[0] if victim == "worker" else process.pid, signal.SIGKILL)
        assert process.wait() == (0 if victim == "worker" else -signal.SIGKILL)
    if victim == "command":
        done = len(table.read_text().splitlines()) - 1
        assert 3 <= done < 14
        subprocess.run([*shared, "--skip-existing"], check=True, env=environment, capture_output=True)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sorted(Path(row["image"]).name for row in rows) == sorted(path.name for path in (files / "in").iterdir())
    assert run(files, *options) == 0
    for name, total in report(files)["summary"]["totals"].items():
        if isinstance(total, int):
            assert sum(int(row[name]) for row in rows) == total, name


def test_nor_a_report_of_a_version_that_counted_less(files, capsys):
    assert run(files) == 0
    content = report(files)
    del content["runs"][0]["facts"]
    (files / "e.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert run(files, "--skip-existing") == 2
    assert "e.json: an earlier version wrote it and counted less; give another --json" in capsys.readouterr().err
