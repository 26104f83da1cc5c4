"""Every command that is installed: its name, its help without heavy imports, what it says of a missing extra."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from esdnet.command.command_line import EXTRAS, PACKAGE, require_extra
from esdnet.command.errors import UserError
from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from tests.distribution.conftest import ROOT
from tests.distribution.test_wheel import PROJECT

SCRIPTS = PROJECT["scripts"]
HEAVY = {"torch", "snntorch", "nir", "lava", *(name.split(".")[0] for names in EXTRAS.values() for name in names)}


def python(*arguments: str, folder: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_the_installed_command_and_imports_nothing_heavy(script, tmp_path):
    module, function = SCRIPTS[script].split(":")
    launcher = tmp_path / script  # as an installer writes it
    launcher.write_text(
        f"import sys\nfrom {module} import {function}\ntry:\n    sys.exit({function}())\n"
        f"finally:\n    print(sorted({HEAVY} & sys.modules.keys()))\n"
    )
    shown = python(str(launcher), "--help").splitlines()
    assert shown[0].startswith(f"usage: {script} [-h]")
    assert shown[-1] == "[]"


@pytest.mark.parametrize(
    "called", ["-m esdnet.train", "-m esdnet.derain", "-m esdnet.evaluate", "-m hw_sim.energy",
               "hw_sim/energy.py", "hw_sim/verify.py", "export/to_nir.py", "export/to_onnx.py", "export/to_lava_dl.py"]
)  # fmt: skip
def test_help_names_the_command_as_it_was_called_in_a_checkout(called):
    assert python(*called.split(), "--help").startswith(f"usage: python {called} [-h]")


def test_a_fixed_script_runs_from_any_folder_without_an_installation(tmp_path):
    script = str(ROOT / "export" / "to_nir.py")
    command = [sys.executable, "-I", script, "--help"]  # isolated: neither the folder nor PYTHONPATH is looked at
    assert "usage: " in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_the_extras_in_the_code_are_those_of_the_package():
    """Their names, and that the modules looked for come from the packages installed."""
    extras = PROJECT["optional-dependencies"]
    assert EXTRAS.keys() == extras.keys() - {"all", "docs", "test"}
    assert extras["all"] == sorted(entry for extra in EXTRAS for entry in extras[extra])
    assert PROJECT["name"] == PACKAGE
    for extra, modules in EXTRAS.items():
        required = [Requirement(entry) for entry in extras[extra]]
        here = {
            entry.name: distribution(entry.name).files
            for entry in required
            if not entry.marker or entry.marker.evaluate()
        }
        for module in modules if here else ():
            folder = module.replace(".", "/") + "/"
            owners = [name for name, files in here.items() if any(str(file).startswith(folder) for file in files)]
            assert len(owners) == 1, module
            del here[owners[0]]
        assert not here, f"{extra}: nothing tells whether {here.keys()} are there"


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_missed_module_by_module(extra, monkeypatch):
    if extra != "lava" or sys.version_info < (3, 11):
        require_extra(extra, "it")
    for name in EXTRAS[extra]:
        with monkeypatch.context() as changed:
            changed.setitem(sys.modules, name, None)  # as Python sees a module that is not installed
            expected = rf"^it needs .*{re.escape(name)}.*, not installed here: pip install 'esdnet-deploy\[{extra}\]'$"
            with pytest.raises(UserError, match=expected):
                require_extra(extra, "it")


@pytest.mark.parametrize(
    ("script", "options", "missing", "extra"),
    [
        ("esdnet-train", "--preset tiny --photos . --out run", "tensorboard", "train"),
        ("esdnet-energy", "--image x.png --html e.html", "jinja2", "report"),
        ("esdnet-energy", "--image x.png --plots charts", "matplotlib", "report"),
        ("esdnet-to-onnx", "tiny.pt", "onnxruntime", "onnx"),
        pytest.param(
            "esdnet-to-lava-dl", "tiny.pt", "lava.lib.dl", "lava",
            marks=pytest.mark.skipif(sys.version_info >= (3, 11), reason="another message: Lava needs Python 3.10"),
        ),
    ],
)  # fmt: skip
def test_a_missing_extra_is_one_line_and_status_2_before_the_work(
    script, options, missing, extra, tmp_path, tiny_model, photo, monkeypatch, capsys
):
    module, function = SCRIPTS[script].split(":")
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.pt", tiny_model)
    save_image("x.png", photo.transpose(1, 2, 0))
    monkeypatch.setitem(sys.modules, missing, None)
    assert getattr(importlib.import_module(module), function)(options.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith(f"not installed here: pip install 'esdnet-deploy[{extra}]'\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.pt", "x.png"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Lava-DL runs here")
def test_the_check_of_netx_is_refused_before_the_work_where_lava_does_not_exist(tmp_path, monkeypatch, capsys):
    from export.to_lava_dl import main

    monkeypatch.chdir(tmp_path)
    assert main(["tiny.pt"]) == 2
    assert re.fullmatch(
        r"error: netx runs on Python 3.10 only, found 3.1\d; .*--no-check .*\n", capsys.readouterr().err
    )


LIGHT = """
import sys
from importlib import import_module
sys.modules.update(dict.fromkeys({missing}))  # as Python sees modules that are not installed
for module, options in (
    ("esdnet.derain", "pairs/input -o derained --checkpoint tiny.pt"),
    ("esdnet.evaluate", "--data pairs --checkpoint tiny.pt"),
    ("hw_sim.energy", "--image pairs/input/x.png --checkpoint tiny.pt --json energy.json"),
    ("hw_sim.energy", "--image pairs/input/x.png --checkpoint tiny.pt --precision int8"),
    ("export.to_nir", "tiny.pt --input-size 16 16"),
    ("export.to_lava_dl", "tiny.pt --input-size 16 16 --no-check"),
    ("hw_sim.verify", "--image pairs/input/x.png --checkpoint tiny.pt --crop 16"),
):
    status = import_module(module).main(options.split())
    assert status == 0, (module, status)
"""


@pytest.mark.slow
def test_a_light_installation_does_all_but_what_the_extras_are_for(tmp_path, tiny_model, photo):
    """And verify, where the other half is missing, says so row by row."""
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    for folder in ("input", "target"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        save_image(tmp_path / "pairs" / folder / "x.png", photo.transpose(1, 2, 0))
    missing = sorted(name.split(".")[0] for names in EXTRAS.values() for name in names)
    shown = python("-c", LIGHT.format(missing=missing), folder=tmp_path)
    for extra, rows in (("onnx", ["ONNX Runtime, float64", "ONNX Runtime, float32"]), ("lava", ["Lava, float64"])):
        for row in rows:
            (line,) = re.findall(rf"^- {row}: (.*)$", shown, re.MULTILINE)
            assert line.startswith("not run: "), line
            assert f"esdnet-deploy[{extra}]" in line
    assert " 0 failed" in shown
