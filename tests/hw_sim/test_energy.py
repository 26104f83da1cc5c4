from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.images.files import load_image, save_image
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.derainer import derain
from export.graph.counting import OF_VALUES
from hw_sim.backends import simulator
from hw_sim.energy import main

ROOT = Path(__file__).parents[2]
SCHEMA = {"image", "network", "backend", "precision", "steps", "tile", "tiles", "executed_size", "prices"}
LAYER = {"name", "block", "kind", "input", "placement", "spikes", "acs", "macs", "elementwise", "energy_uj"}


@pytest.fixture
def files(tmp_path, tiny_model, photo):
    """A checkpoint and an image of an odd size in an empty folder."""
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    save_image(tmp_path / "x.png", photo.transpose(1, 2, 0)[:30, :21])
    return tmp_path


def run(files: Path, *options: str) -> int:
    return main(["--image", str(files / "x.png"), "--checkpoint", str(files / "tiny.pt"), *options])


def test_json_has_the_promised_schema_and_the_simulators_counts(files, tiny_network, capsys):
    assert run(files, "--json", str(files / "e.json"), "--precision", "float64") == 0
    content = json.loads((files / "e.json").read_text())
    assert content.keys() >= SCHEMA
    assert all(row.keys() >= LAYER for row in content["layers"])
    assert [row["name"] for row in content["layers"]] == [node.name for node in tiny_network.nodes]
    assert content["executed_size"] == [32, 24]
    image = np.pad(load_image(files / "x.png").transpose(2, 0, 1), ((0, 0), (0, 2), (0, 3)), mode="edge")
    counts = simulator.run(tiny_network, image, precision="float64").counts
    for row in content["layers"]:
        totals = counts[row["name"]].totals()
        assert (row["spikes"], row["acs"], row["macs"]) == (totals["spikes"], totals["acs"], totals["macs"])
    assert "tiny.pt" in capsys.readouterr().err


def test_backends_agree_on_every_count(files):
    for backend in ("simulator", "torch"):
        assert run(files, "--backend", backend, "--precision", "float64", "--json", str(files / f"{backend}.json")) == 0
    one, other = (json.loads((files / f"{name}.json").read_text()) for name in ("simulator", "torch"))
    looked = [{key: row[key] for key in row if key not in OF_VALUES} for row in one["layers"]]
    assert looked == [{key: row[key] for key in row if key not in OF_VALUES} for row in other["layers"]]
    assert 0 < one["totals"]["nonzero_macs"] <= one["totals"]["macs"]
    assert "nonzero_macs" not in other["totals"]  # torch's modules are not asked for values


@pytest.mark.parametrize("backend", ["simulator", "torch"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_no_run_allows_tf32(files, monkeypatch, backend, precision):
    """The switch of a GPU, looked at while the network runs; on a CPU it is set as well."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    convolve = torch.nn.functional.conv2d

    def watch(*arguments, **options):
        seen.append(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
        return convolve(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watch)
    assert run(files, "--backend", backend, "--precision", precision) == 0
    assert seen
    assert not any(seen)


def test_the_derained_image_is_the_networks_output(files, tiny_model):
    assert run(files, "--save-image", str(files / "out.png")) == 0
    image = load_image(files / "x.png")
    with torch.no_grad():
        expected = tiny_model(torch.from_numpy(image.transpose(2, 0, 1)[None]).float())[0].permute(1, 2, 0).double()
    saved = load_image(files / "out.png")
    assert saved.shape == image.shape
    assert np.abs(saved - expected.clamp(0, 1).numpy()).max() < 1.5 / 255  # 8 bits, and float32 in another order


def test_table_totals_references_and_assumptions_are_printed(files, capsys):
    assert run(files) == 0
    out = capsys.readouterr().out
    for text in (
        "encoder_level1.0.residual.1", "analog MACs", "spike ACs", "signs (spikes)", "on neurocores", "on the host",
        "firing rate", "the paper's text rule", "dense ANN", "Horowitz 45 nm, float32", "Loihi 1", "Counted:",
    ):  # fmt: skip
        assert text in out, text
    assert "…" not in out
    header = next(line for line in out.splitlines() if "ACs" in line)
    assert header.split() == ["layer", "reads", "spikes", "ACs", "MACs", "element-wise", "uJ"]


def test_tiles_are_stated_and_their_overlap_is_counted(files):
    assert run(files, "--tile", "16", "--json", str(files / "e.json")) == 0
    content = json.loads((files / "e.json").read_text())
    # 32 x 24 padded; tiles of 16 that share at least 8: 3 rows x 2 columns
    assert (content["tile"], content["overlap"]) == (16, 8)
    assert (content["tiles"], content["executed_size"]) == (6, [16, 16])
    whole = files / "w.json"
    run(files, "--json", str(whole))
    assert content["totals"]["macs"] > json.loads(whole.read_text())["totals"]["macs"]
    assert run(files, "--tile", "16", "--overlap", "0", "--json", str(files / "f.json")) == 0
    content = json.loads((files / "f.json").read_text())
    assert (content["overlap"], content["tiles"]) == (0, 4)


def test_html_and_plots_are_whole(files):
    assert run(files, "--html", str(files / "r.html"), "--plots", str(files / "plots")) == 0
    text = (files / "r.html").read_text()
    assert '<section id="spikes">' in text
    (command,) = re.findall(r'<pre id="command">(.*)</pre>', text)
    assert command.endswith(f"--checkpoint {files}/tiny.pt --html {files}/r.html --plots {files}/plots")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    content = json.loads(data)
    placed = {layer["name"]: layer["place"] for layer in content["layers"]}
    assert placed["encoder_level1.0.residual.1"] == "neurocore"
    assert placed["refinement.ca.0"] == "host"
    assert content["spikes"]["covers"] == [30 / 32, 21 / 24]
    maps = content["spikes"]["layers"]
    assert maps.keys() == {layer["name"] for layer in content["layers"] if layer["kind"] == "neuron"}
    assert all(len(layer["steps"]) == 4 for layer in maps.values())
    for name in ("energy_by_block.png", "firing_rates.png"):
        with Image.open(files / "plots" / name) as picture:
            assert picture.width > 500


def test_prices_of_the_users_own(files):
    (files / "mine.toml").write_text("[mac]\npj = 2\nsource = 'mine'\ngrade = 'guess'\n")
    assert run(files, "--prices", str(files / "mine.toml"), "--json", str(files / "e.json")) == 0
    content = json.loads((files / "e.json").read_text())
    assert content["totals"]["energy_uj"] == pytest.approx(content["totals"]["macs"] * 2e-6)
    assert content["unpriced"].keys() == {"acs", "spikes"}


def write_png(path: Path, mode: str, value) -> None:
    Image.new(mode, (20, 20), value).save(path)


BAD_IMAGES = {
    "missing file": (lambda p: None, "no such file"),
    "text": (lambda p: p.write_text("hello"), "cannot be read as an image"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as an image"),
    "truncated": (lambda p: (write_png(p, "RGB", 9), p.write_bytes(p.read_bytes()[:60])), "cannot be read as an image"),
    "one pixel": (lambda p: Image.new("RGB", (1, 1)).save(p), "1x1 pixels, expected at least"),
    "transparent": (lambda p: write_png(p, "RGBA", (1, 2, 3, 4)), "transparent pixels"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_one_line_and_status_2(files, capsys, case):
    write, message = BAD_IMAGES[case]
    bad = files / "bad.png"
    write(bad)
    assert main(["--image", str(bad), "--checkpoint", str(files / "tiny.pt"), "--json", str(files / "e.json")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert "bad.png" in captured.err
    assert message in captured.err
    assert captured.out == ""
    assert not (files / "e.json").exists()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "LA"])
def test_grey_palette_opaque_and_16_bit_images_are_read(files, mode):
    white = {"L": 255, "P": 0, "RGBA": (255, 255, 255, 255), "I;16": 65535, "LA": (255, 255)}[mode]
    write_png(files / "x.png", mode, white)
    assert run(files) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prices", "gold"], "price list 'gold' is unknown"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: expected a checkpoint file, found nothing"),
        (["--tile", "30"], "tile size 30: expected 0 (whole image) or a multiple of 4"),
        (["--json", "nowhere/e.json"], "--json nowhere/e.json: there is no folder nowhere"),
        (["--json", "."], "--json .: is a folder"),
        (["--json", "x", "--html", "x"], "--html x: would overwrite what --json writes"),
        (["--json", "x.png"], "--json x.png: would overwrite an input"),
        (["--json", "tiny.pt"], "--json tiny.pt: would overwrite an input"),
        (["--save-image", "./x.png"], "--save-image x.png: would overwrite an input"),
        (["--save-image", "new/o.png"], "there is no folder new; make it first"),
        (["--plots", ".", "--save-image", "firing_rates.png"], "firing_rates.png: would overwrite another output"),
        (["--overlap", "4"], "--overlap 4: is that of tiles; give --tile too"),
        (["--lava-model", "fine"], "--lava-model: is for --backend lava, found --backend simulator"),
        (["--lava-stock", "--backend", "torch"], "--lava-stock: is for --backend lava, found --backend torch"),
        (["--skip-existing", "--json", "e.json"], "--skip-existing: takes over what the --json or --table FILE of"),
        (["--table", "e.csv"], "--table: has a row for each image of a folder"),
        (["--workers", "0"], "--workers 0: expected at least 1"),
        (["--workers", "2"], "x.png runs whole, or in others"),
        (["--workers", "2", "--backend", "lava"], "--workers, --scheduler: Lava has processes of its own"),
        (["--save-image", "out.jpg"], "expected a name that ends in .png"),
        (["--device", "cuda"], "no CUDA device is available"),
        (["--network", "nowhere_nir"], "nowhere_nir"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(files, capsys, monkeypatch, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(files)
    checkpoint = [] if {"--checkpoint", "--network"} & set(options) else ["--checkpoint", "tiny.pt"]
    assert main(["--image", "x.png", *checkpoint, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_lava_is_not_given_more_than_it_takes_at_once(files, capsys):
    save_image(files / "x.png", np.full((132, 40, 3), 0.5))
    assert run(files, "--backend", "lava") == 2
    assert "at most 128x128; add --tile" in capsys.readouterr().err


def test_a_folder_without_images_and_html_for_a_folder(files, capsys):
    (files / "in").mkdir()
    assert main(["--image", str(files / "in"), "--checkpoint", str(files / "tiny.pt")]) == 2
    assert "holds no image" in capsys.readouterr().err
    save_image(files / "in" / "a.png", np.full((16, 20, 3), 0.5))
    assert main(["--image", str(files / "in"), "--html", str(files / "r.html")]) == 2
    assert "--html and --plots show one image" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_said_before_the_work(files, capsys):
    (files / "locked").mkdir(mode=0o500)
    assert run(files, "--json", str(files / "locked" / "e.json")) == 2
    assert "is not writable" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--image", "--checkpoint", "--network", "--json"])
def test_what_is_missing_is_said_before_torch_is_loaded(files, option):
    code = "import sys\nfrom hw_sim.energy import main\nstatus = main(sys.argv[1:])\nassert 'torch' not in sys.modules"
    arguments = {"--image": str(files / "x.png"), option: "no/where"}
    if option == "--network":  # is looked for by its reader
        code = code.replace("assert", "#")
    command = [sys.executable, "-c", code, *(word for pair in arguments.items() for word in pair)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "no/where" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bundled_checkpoint_by_name(files, capsys):
    image = ["--image", str(files / "x.png"), "--json", str(files / "e.json")]
    assert main([*image, "--checkpoint", "small_spike_driven"]) == 0
    assert json.loads((files / "e.json").read_text())["network"] == "small_spike_driven.pt (bundled)"


def test_no_arguments_is_usage_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "--image" in capsys.readouterr().err


def test_the_command_runs_as_a_script_from_anywhere(files):
    command = [sys.executable, str(ROOT / "hw_sim" / "energy.py"), "--image", "x.png", "--checkpoint", "tiny.pt"]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Layer by layer" in done.stdout


@pytest.fixture
def without_spikes(files, dual_stage_model):
    """A dual-stage network's checkpoint in the place of the other."""
    save_checkpoint(files / "tiny.pt", dual_stage_model)
    return files


def test_a_network_without_spikes_is_counted_and_priced(without_spikes, capsys):
    files = without_spikes
    for backend in ("simulator", "torch"):
        shown = ["--prices", "all", "--html", str(files / "e.html"), "--plots", str(files / "plots")]
        more = shown if backend == "simulator" else []
        assert run(files, "--backend", backend, "--json", str(files / f"{backend}.json"), *more) == 0
    out = capsys.readouterr().out
    assert "stage2.bottleneck.attentions.0.attend" in out
    assert "No spikes: its own layers as an ANN are the network itself." in out
    assert not any(words in out for words in ("neurocores", "firing rate", "dense ANN", "even at"))
    assert [path.name for path in (files / "plots").iterdir()] == ["energy_by_block.png"]
    page = re.sub("<script.*?</script>", "", (files / "e.html").read_text(), flags=re.DOTALL)
    assert not re.search("(?i)firing rate|beside it", page)
    assert "Where the mask is" in page
    one, other = (json.loads((files / f"{name}.json").read_text()) for name in ("simulator", "torch"))
    assert one["executed_size"] == [32, 32]
    assert one["totals"]["macs"] > 0 == one["totals"]["acs"] == one["totals"]["spikes"]
    assert {row["placement"] for row in one["layers"]} == {"host"}
    assert (one["references_uj"], one["break_even_ac_to_mac_price"]) == ({}, None)
    assert {row["against_own"]["word"] for row in one["models"]} == {"no answer"}
    looked = [{key: row[key] for key in row if key not in OF_VALUES} for row in one["layers"]]
    assert looked == [{key: row[key] for key in row if key not in OF_VALUES} for row in other["layers"]]
    assert main(["--from", str(files / "torch.json"), "--prices", "all"]) == 0


def test_tiles_of_a_network_without_spikes(without_spikes, dual_stage_model):
    files = without_spikes
    save_image(files / "x.png", np.random.default_rng(0).random((40, 70, 3)))
    assert run(files, "--tile", "32", "--save-image", str(files / "o.png"), "--json", str(files / "e.json")) == 0
    content = json.loads((files / "e.json").read_text())
    assert (content["tiles"], content["executed_size"]) == (12, [32, 32])  # 64 x 96 padded: 3 rows x 4 columns
    expected = derain(dual_stage_model, load_image(files / "x.png"), tile=32, overlap=8).output.permute(1, 2, 0).numpy()
    assert np.abs(load_image(files / "o.png") - expected.clip(0, 1)).max() < 1.5 / 255  # as above


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "36"], "tile size 36: expected 0 (whole image) or a multiple of 32"),
        (["--precision", "int8"], "mask.share (pool): a mean of spike values, expected a maximum of spikes"),
        (["--backend", "lava"], "the Lava backend has no rule for kind "),
    ],
)
def test_what_a_network_without_spikes_is_not_for_is_one_line(without_spikes, capsys, options, message):
    if "lava" in options:
        pytest.importorskip("lava")
    assert run(without_spikes, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""
