from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from export.graph.counting import OF_VALUES
from hw_sim import energy, verify

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")

MODULE = """
import snntorch as snn
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), snn.Leaky(beta=0.9, init_hidden=True, threshold=0.3),
                         nn.Linear(20, 4), snn.Leaky(beta=0.9, init_hidden=True, threshold=0.2))

def with_a_run():
    return network(), lambda module, frames: torch.stack([module(frame) for frame in frames])

def nothing():
    return None

def fails():
    raise RuntimeError("no weights")
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODULE)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((30, 12)) < 0.3)
    return tmp_path


def price(*options: str, network: str = "net.py:network", frames: str = "x.npy") -> int:
    return energy.main(["--network", network, "--input", frames, *options])


def test_counts_and_output_of_a_module(files, capsys):
    assert price("--json", "e.json", "--save-output", "y.npy", "--html", "e.html") == 0
    out = capsys.readouterr().out
    assert "30 steps of 12 spike values" in out
    content = json.loads((files / "e.json").read_text())
    layers = {row["name"]: row for row in content["layers"]}
    spikes = int(np.load("x.npy").sum())
    assert layers["0"]["acs"] == 20 * spikes
    assert layers["2"]["acs"] == 4 * layers["1"]["spikes"] > 0
    assert content["totals"]["macs"] == 0
    assert content["parameters"] == {"model": 12 * 20 + 20 + 20 * 4 + 4, "counted": 12 * 20 + 20 + 20 * 4 + 4}
    output = np.load("y.npy")
    assert (output.shape, output.dtype) == ((30, 4), bool)
    assert int(output.sum()) == layers["3"]["spikes"]
    page = (files / "e.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == [
        "totals", "graph", "blocks", "rates", "layers", "models", "assumptions",
    ]  # fmt: skip
    assert "--network net.py:network --input x.npy --json e.json" in page


def test_a_function_that_runs_it_gives_the_same(files):
    assert price("--json", "a.json") == 0
    assert price("--json", "b.json", network="net.py:with_a_run") == 0
    one, other = (json.loads((files / name).read_text())["layers"] for name in ("a.json", "b.json"))
    assert one == other


def test_the_kind_of_input_is_declared_and_checked(files, capsys):
    np.save("numbers.npy", np.load("x.npy").astype(np.float32))
    assert price("--json", "a.json", frames="numbers.npy") == 0
    assert json.loads((files / "a.json").read_text())["layers"][1]["macs"] == 30 * 12 * 20
    assert price("--input-kind", "spike", "--json", "s.json", frames="numbers.npy") == 0
    assert json.loads((files / "s.json").read_text())["layers"][1]["macs"] == 0
    np.save("half.npy", np.load("numbers.npy") * 0.5)
    assert price("--input-kind", "spike", frames="half.npy") == 2
    assert "spikes are 0 and 1, found 0.5; for numbers give --input-kind analog" in capsys.readouterr().err


def bad_inputs() -> dict[str, tuple[np.ndarray | bytes, str]]:
    frames = np.zeros((30, 12))
    frames[3, 4] = np.nan
    return {
        "nan": (frames, "input has NaN or infinity in 1 places"),
        "shape": (np.zeros((30, 13)), "cannot be run on an input of shape (30, 13)"),
        "empty": (b"", "not an array that numpy.save wrote"),
        "text": (np.array(["a"]), "input of <U1, expected numbers or booleans"),
        "objects": (np.array([{}]), "not an array that numpy.save wrote"),
        "no steps": (np.zeros((0, 12)), "input of shape (0, 12): holds nothing"),
    }


@pytest.mark.parametrize("case", bad_inputs())
def test_a_bad_input_is_one_line(files, capsys, case):
    array, message = bad_inputs()[case]
    if isinstance(array, bytes):
        (files / "bad.npy").write_bytes(array)
    else:
        np.save("bad.npy", array)
    assert price("--json", "e.json", frames="bad.npy") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not (files / "e.json").exists()


@pytest.mark.parametrize(
    ("options", "network", "message"),
    [
        ((), "gone.nir", "--network gone.nir: not found"),
        ((), "x.npy", "--network x.npy: not a network that can be read"),
        ((), "net.py:gone", "the file has no function 'gone'"),
        ((), "net.py:nothing", "returned NoneType, expected a torch module"),
        ((), "net.py:fails", "RuntimeError: no weights"),
        (("--tile", "16"), "net.py:network", "--tile: is for --image, found --input"),
        (
            ("--precision", "int8"),
            "net.py:network",
            "int8: 1 (leaky): reset 'subtract', a step later, expected to zero",
        ),
        (("--backend", "torch"), "net.py:network", "--backend torch: not for --input"),
        (("--lava-stock", "--backend", "lava"), "net.py:network", "--lava-stock: is for --image, found --input"),
        (("--lava-model", "fine"), "net.py:network", "--lava-model: is for --backend lava, found --backend simulator"),
        (("--dt", "-1"), "net.py:network", "--dt -1.0: expected seconds above 0"),
        (("--prices", "all"), "net.py:network", "--prices all: needs --against REPORT beside --input"),
    ],
)
def test_a_bad_command_is_one_line(files, capsys, options, network, message):
    assert price(*options, network=network) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@needs_lava
@pytest.mark.timeout(300)
def test_lava_gives_the_same_counts_and_output(files, capsys):
    assert price("--json", "simulator.json", "--save-output", "simulator.npy") == 0
    assert price("--backend", "lava", "--json", "lava.json", "--save-output", "lava.npy") == 0
    assert "30 steps of 12 spike values, lava (fused), float64" in " ".join(capsys.readouterr().out.split())
    assert (files / "simulator.npy").read_bytes() == (files / "lava.npy").read_bytes()
    expected, found = (json.loads((files / name).read_text()) for name in ("simulator.json", "lava.json"))
    assert found["backend_facts"]["sequences"] == 1
    assert found["backend_facts"]["steps"] == 30
    for row, other in zip(expected["layers"], found["layers"], strict=True):
        assert other == {key: value for key, value in row.items() if key not in OF_VALUES}
    assert expected["totals"]["acs"] == found["totals"]["acs"] > 0


def test_without_lava_one_line(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lava", None)  # as Python sees a package that is not installed
    assert price("--backend", "lava", "--json", "e.json") == 2
    assert re.match(r"error: Lava: .*lava-nc.*simulator$", capsys.readouterr().err.strip())
    assert verify.main(["--network", "net.py:network", "--input", "x.npy", "--json", "v.json"]) == 0
    (row,) = (row for row in json.loads((files / "v.json").read_text())["rows"] if row["backend"] == "Lava")
    assert row["status"] == "not run"


def test_options_of_an_input_beside_an_image_are_refused(files, capsys):
    assert energy.main(["--image", "x.png", "--input-kind", "spike"]) == 2
    assert "--input-kind: is for --input, found --image" in capsys.readouterr().err


def test_verify_has_a_row_for_every_backend(files, capsys):
    assert verify.main(["--network", "net.py:network", "--input", "x.npy", "--json", "v.json"]) == 0
    rows = json.loads((files / "v.json").read_text())["rows"]
    assert {(row["backend"], row["precision"]): row["status"] for row in rows} == {
        ("simulator on cpu", "float64"): "reference",
        ("snnTorch module", "float64"): "holds",
        ("ONNX Runtime", "float64"): "holds",
        ("NIR, written and read back", "float64"): "not run",
        ("Lava", "float64"): "holds" if sys.version_info < (3, 11) else "not run",
        ("simulator on cpu", "int8"): "not run",
    }
    assert {row["mismatches"] for row in rows if row["status"] == "holds"} == {0}
    assert "the reference is the simulator on cpu, float64" in capsys.readouterr().out


def test_verify_fails_where_nothing_spikes_or_a_backend_errs(files, capsys, monkeypatch):
    np.save("nothing.npy", np.zeros((5, 12), bool))
    (files / "silent.py").write_text(MODULE.replace("threshold=0.3", "threshold=30.0").replace("0.2))", "20.0))"))
    assert verify.main(["--network", "silent.py:network", "--input", "nothing.npy"]) == 1
    assert "nothing spiked in the reference" in capsys.readouterr().out
    from export.targets.onnx import step

    monkeypatch.setitem(sys.modules, "lava", None)  # the others run
    monkeypatch.setattr(step, "_plus", lambda graph, x, y, name: graph.op("Sub", [x, y], name))
    assert verify.main(["--network", "net.py:network", "--input", "x.npy"]) == 1
    assert "1, step " in capsys.readouterr().out


def test_a_module_that_fires_otherwise_than_its_graph_fails_its_row(files, capsys, monkeypatch):
    """Past the reader's own check: the row is measured."""
    from export.readers import snntorch, torch_modules

    monkeypatch.setattr(snntorch, "_check", lambda *_: None)
    rule = torch_modules.array
    monkeypatch.setattr(torch_modules, "array", lambda tensor: rule(tensor) * 0.9)
    assert verify.main(["--network", "net.py:network", "--input", "x.npy"]) == 1
    row = next(line for line in capsys.readouterr().out.splitlines() if "snnTorch module" in line)
    assert "FAILED" in row
    assert "1, step " in row
