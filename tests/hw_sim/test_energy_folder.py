"""energy.py on a folder: one report of all images, failures named, an earlier report gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from hw_sim import energy
from hw_sim.energy import Pricing, main


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
    price = Pricing.price

    def watched(self, path):
        seen.append(path.name)
        return price(self, path)

    monkeypatch.setattr(energy.Pricing, "price", watched)
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
    price = Pricing.price

    def interrupted(self, path):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return price(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Pricing, "price", interrupted)
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


def test_nor_a_report_of_a_version_that_counted_less(files, capsys):
    assert run(files) == 0
    content = report(files)
    del content["runs"][0]["facts"]
    (files / "e.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert run(files, "--skip-existing") == 2
    assert "e.json: an earlier version wrote it and counted less; give another --json" in capsys.readouterr().err
