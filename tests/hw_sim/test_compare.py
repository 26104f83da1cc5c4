"""`compare.py a.json b.json`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from hw_sim import energy
from hw_sim.compare import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_model, spike_driven_model, photo):
    """Reports of an image through both networks, and of one of them in integers."""
    folder = tmp_path_factory.mktemp("compare")
    save_image(folder / "x.png", photo.transpose(1, 2, 0))
    for name, model in (("released", tiny_model), ("spike_driven", spike_driven_model)):
        save_checkpoint(folder / f"{name}.pt", model)
        run(folder, name, f"{name}.json")
    run(folder, "released", "int8.json", "--precision", "int8")
    return folder


def run(folder, name, report, *options):
    files = ["--image", str(folder / "x.png"), "--checkpoint", str(folder / f"{name}.pt")]
    assert energy.main([*files, "--json", str(folder / report), *options]) == 0


def read(path):
    return json.loads(path.read_text())


def test_two_networks_side_by_side(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert main(["released.json", "spike_driven.json", "--json", "c.json", "--html", "c.html"]) == 0
    out = capsys.readouterr().out
    a, b = read(files / "released.json"), read(files / "spike_driven.json")
    numbers = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert numbers["ACs"] == [f"{a['totals']['acs']:,}", f"{b['totals']['acs']:,}", numbers["ACs"][2]]
    assert float(numbers["ACs"][2].rstrip("x")) == pytest.approx(b["totals"]["acs"] / a["totals"]["acs"], rel=1e-2)
    both = {layer["name"] for layer in a["layers"]} & {layer["name"] for layer in b["layers"]}
    record = read(files / "c.json")
    assert sum(layer["in"] == "both" for layer in record["layers"]) == len(both) > 20
    named = {layer["name"]: layer for layer in record["layers"]}
    assert named["encoder_level1.0.residual.0.on"]["in"] == "b"
    assert named["encoder_level1.0.residual.0"]["in"] == "a"
    page = (files / "c.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == [
        "totals", "blocks", "rates", "layers", "models", "assumptions",
    ]  # fmt: skip
    assert "released.json spike_driven.json --json c.json --html c.html" in page
    assert "did not run on the same input" not in out + re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)


def test_float_against_int8_has_every_layer_in_both(files, capsys):
    assert main([str(files / "released.json"), str(files / "int8.json")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"precision +float32 +int8 +differs", out)
    assert "0 in A only, 0 in B only" in out
    assert "MACs not by 0" not in out  # nobody looked at values in integers
    assert re.search(r"ESDNet paper, as its source states it +[\d.,]+ +[\d.,]+ +[\d.]+x", out)
    assert re.search(r"Loihi 1 \(pre-silicon\), as its source states it +> [\d.,]+ +> [\d.,]+ +no answer", out)


def test_another_price_list(files, capsys):
    reports = [str(files / "released.json"), str(files / "spike_driven.json")]
    assert main([*reports, "--prices", "horowitz_int8"]) == 0
    out = capsys.readouterr().out
    assert "Totals (prices: horowitz_int8)" in out


@pytest.mark.slow
def test_what_ran_on_something_else_is_said_and_compared(files, capsys):
    other = read(files / "int8.json") | {"image": "another.png"}
    (files / "other.json").write_text(json.dumps(other))
    assert main([str(files / "released.json"), str(files / "other.json"), "--html", str(files / "o.html")]) == 0
    assert "They did not run on the same input" in capsys.readouterr().out
    assert "They did not run on the same input" in (files / "o.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.json", "int8.json"], "report nowhere.json: cannot be read as a report"),
        (["int8.json", "x.png"], "report x.png: cannot be read as a report"),
        (["folder.json", "int8.json"], "report folder.json: is the report of a folder; expected that of one image"),
        (["int8.json", "list.json"], "report list.json: is not a report of energy.py --json"),
        (
            ["old.json", "int8.json"],
            "old.json: was written by a version that did not count for energy models; run it again",
        ),
        (["lacks.json", "int8.json"], "lacks.json: layer input lacks kind, neuron_updates; run energy.py again"),
        (["cut.json", "int8.json"], "cut.json: layers and facts are not of the same layers"),
        (["odd.json", "int8.json"], "odd.json: layers are 'none', expected a list of layers"),
        (["int8.json", "int8.json", "--prices", "gold"], "price list 'gold' is unknown"),
        (["int8.json", "released.json", "--json", "int8.json"], "--json int8.json: would overwrite an input"),
        (["int8.json", "released.json", "--json", "x", "--html", "x"], "--html x: would overwrite what --json writes"),
        (["int8.json", "released.json", "--html", "new/x.html"], "there is no folder new; make it first"),
    ],
)
def test_mistakes_are_one_line_and_status_2(files, capsys, monkeypatch, options, message):
    monkeypatch.chdir(files)
    report = read(files / "int8.json")
    first = {key: value for key, value in report["layers"][0].items() if key not in ("kind", "neuron_updates")}
    for name, content in {
        "folder.json": {"settings": {}, "runs": []}, "list.json": [1],
        "old.json": {key: value for key, value in report.items() if key != "facts"},
        "lacks.json": report | {"layers": [first, *report["layers"][1:]]},
        "cut.json": report | {"layers": report["layers"][1:]}, "odd.json": report | {"layers": "none"},
    }.items():  # fmt: skip
        Path(name).write_text(json.dumps(content))
    before = Path("int8.json").read_bytes()
    assert main(options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert Path("int8.json").read_bytes() == before


@pytest.mark.slow
def test_it_runs_as_a_script_from_anywhere_without_torch(files):
    script = (
        f"import sys; sys.argv[0] = 'compare.py'; sys.path.insert(0, {str(ROOT)!r})\nfrom hw_sim.compare import main\n"
        "status = main(sys.argv[1:])\nassert 'torch' not in sys.modules\nsys.exit(status)"
    )
    options = ["released.json", "int8.json", "--html", "s.html"]
    for command in ([sys.executable, "-c", script], [sys.executable, str(ROOT / "hw_sim" / "compare.py")]):
        done = subprocess.run([*command, *options], cwd=files, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
