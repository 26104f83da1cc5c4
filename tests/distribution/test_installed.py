"""The wheel at work: installed into a new environment, run in a folder that is not the checkout."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.distribution.conftest import ROOT, done, new_environment, run, write_own_files
from tests.distribution.test_wheel import PROJECT

HAS_LAVA = sys.version_info < (3, 11)
QUICK = {  # added to a command, so that it does not take hours here
    "esdnet-train": ["--steps", "2", "--batch", "1", "--crop", "32", "--held-out", "1", "--threads", "1"],
    "esdnet-verify": ["--crop", "16"],
    "esdnet-to-lava-dl": [] if HAS_LAVA else ["--no-check"],
}
VARIES = {"seconds", "facts"}  # of a report, from run to run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    write_own_files(tmp_path, tiny_model)
    return tmp_path


def test_what_is_imported_is_what_was_installed(installed, tmp_path):
    code = "import esdnet, export, hw_sim; print(esdnet.__file__, export.__file__, hw_sim.__file__, sep='\\n')"
    for path in done([str(installed / "python"), "-c", code], tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


def test_every_command_of_the_readme_runs_as_installed(installed, folder):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.split() for line in re.findall(r"^esdnet-.+$", text, re.MULTILINE)]
    assert {words[0] for words in commands} == PROJECT["scripts"].keys()
    printed = {}
    for name, *options in commands:
        printed[name] = done([str(installed / name), *options, *QUICK.get(name, [])], folder)
    assert "mean of 2" in printed["esdnet-evaluate"]
    assert "Estimate for Intel Loihi 2" in printed["esdnet-to-lava-dl"]
    assert " 0 failed" in printed["esdnet-verify"]
    written = {"derained.png", "energy.json", "report.html", "ckpt_nir", "ckpt.onnx", "ckpt_lava_dl", "runs"}
    assert written <= {path.name for path in folder.iterdir()}


def test_the_lines_of_the_readme_that_install_it(source, tmp_path):
    """Without a network: what the extra asks for must be here in the versions that it asks for, else pip ends there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line.split(" #")[0])[1:] for line in re.findall(r"^pip .+$", text, re.MULTILINE)]
    assert [words[0] for words in lines] == ["install", "wheel", "install"]
    checkout = tmp_path / "checkout"
    shutil.copytree(source, checkout, symlinks=True)
    offline = ["--no-index", "--find-links", str(write_argparse(tmp_path / "wheels"))]
    for number, words in enumerate(lines):
        programs = new_environment(tmp_path / f"environment{number}")
        pip = [str(programs / "python"), "-m", "pip", words[0], "--quiet", "--no-build-isolation", *offline]
        done([*pip[:3], "uninstall", "--quiet", "--yes", "setuptools"], tmp_path)  # the interpreter's own: too old
        done([*pip, *words[1:]], checkout)
        if words[0] == "install":
            printed = done([str(programs / "esdnet-derain"), "--help"], tmp_path)
            assert "usage: esdnet-derain" in printed


def write_argparse(folder: Path) -> Path:
    """An empty wheel of argparse: Lava needs it by way of others, and pip does not see one that is installed."""
    folder.mkdir()
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: argparse\nVersion: 1.4.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / "argparse-1.4.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(f"argparse-1.4.0.dist-info/{name}", text)
    return folder


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_energy_reports_what_the_checkout_reports(precision, installed, folder):
    """With the module form of the command, and int8 with the calibration image that ships."""
    options = ["--image", "rainy.png", "--checkpoint", "ckpt.pt", "--precision", precision, "--save-image"]
    here = [str(installed / "python"), "-m", "hw_sim.energy", *options, "here.png", "--json", "here.json"]
    there = [sys.executable, str(ROOT / "hw_sim" / "energy.py"), *options, "there.png", "--json", "there.json"]
    done(here, folder)
    done(there, folder)
    reports = [json.loads((folder / name).read_text()) for name in ("here.json", "there.json")]
    assert reports[0]["totals"]["spikes"] > 0
    for key in reports[0].keys() - VARIES:
        assert reports[0][key] == reports[1][key], key
    assert (folder / "here.png").read_bytes() == (folder / "there.png").read_bytes()


def test_verify_has_the_same_rows_as_from_the_checkout(installed, folder):
    options = ["--image", "rainy.png", "--checkpoint", "ckpt.pt", "--crop", "16", "--json"]
    done([str(installed / "esdnet-verify"), *options, "here.json"], folder)
    done([sys.executable, str(ROOT / "hw_sim" / "verify.py"), *options, "there.json"], folder)
    rows = [json.loads((folder / name).read_text())["rows"] for name in ("here.json", "there.json")]
    for row in (*rows[0], *rows[1]):
        assert row.pop("seconds") is None or row["status"] != "not run"
    assert rows[0] == rows[1]
    held = {(row["backend"], row["precision"]) for row in rows[0] if row["status"] == "holds"}
    assert ("netx segments on Lava", "int8") in held or not HAS_LAVA


def test_a_mistake_is_one_line_and_status_2(installed, folder):
    refused = run([str(installed / "esdnet-to-lava-dl"), "ckpt.pt", "--target", "tpu", "--no-check"], folder)
    assert refused.returncode == 2
    assert refused.stderr == "error: --target tpu: unknown, expected one of loihi2\n"
