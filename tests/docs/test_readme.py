"""README.md as it stands: what it says of energy is what the recorded counts give, and its commands and Python run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import energy_models
from hw_sim.pricing.counted import nafnet_on
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.verdicts import ModelRow, judge
from tests.distribution.conftest import write_own_files
from tests.docs.pages import ROOT, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = {  # added to a command, so that it does not take hours here
    "esdnet.train": ["--steps", "2", "--batch", "1", "--crop", "32", "--held-out", "1", "--threads", "1"],
    "hw_sim/verify.py --image": ["--crop", "16"],
}

SAID = {  # by commands that begin so
    "hw_sim/compare.py": "small_spike_driven",
    "hw_sim/verify.py": " 0 failed",
    "export/to_nir.py mynet": "read back, 0 of ",
    "-m esdnet.evaluate": "mean of 2",
}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[ModelRow]]:
    """Of each network, those that have an answer."""
    models = [load_model(name) for name in available_models()]
    nafnet = nafnet_on((energy_models.SIZE, energy_models.SIZE)).layers
    found = {
        network.name: judge(network.images[0], models, nafnet)
        for network in energy_models.read_record(energy_models.RECORD)
    }
    return {name: [row for row in of_it if row.against_own.ratio] for name, of_it in found.items()}


def wins(rows: list[ModelRow], verdict: str) -> str:
    ratios = [getattr(row, verdict).ratio for row in rows]
    return f"{sum(ratio < 1 for ratio in ratios)} of {len(ratios)}"


def test_the_energy_finding_is_what_the_models_say(rows):
    section = README.split("## Does it save energy?")[1].split("![")[0]
    alone, own, nafnet, gated, equal = re.findall(r"^- (.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)
    for width in ("dim 16", "dim 48"):
        assert wins(rows[f"released, {width}"], "against_own") == "0 of 19"
        assert wins(rows[f"spike-driven, {width}"], "against_own") in own
        assert f"{wins(rows[f'spike-driven, {width}'], 'against_reference')} at {width}" in nafnet
        losing = {row.variant for row in rows[f"spike-driven, {width}"] if row.against_own.ratio >= 1}
        assert losing == {"the ANN reads weights and inputs once"}
        assert wins(rows[f"gated, {width}"], "against_own") in gated.split("its own")[1]
        assert f"{wins(rows[f'gated, {width}'], 'against_reference')} at {width}" in gated
    assert "in all 19" in alone
    assert "costs less in 7 of 19" in equal  # tests/docs/test_figures_in_pages.py runs both
    ratios = [row.against_reference.ratio for row in rows["released, dim 48"]]
    assert f"{min(ratios):.2f} to {max(ratios):,.0f} times" in " ".join(alone.split())


def test_every_block_says_what_it_is():
    opening = re.findall(r"^```(\w*)\n.*?^```$", README, re.MULTILINE | re.DOTALL)
    assert set(opening) == {"bash", "python", "text"}


@pytest.fixture
def folder(tmp_path, tiny_model, monkeypatch) -> Path:
    """What a checkout has that the README names, and the files of one's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("esdnet", "export", "hw_sim", "docs"):
        Path(name).symlink_to(ROOT / name)
    write_own_files(tmp_path, tiny_model)
    page = (ROOT / "docs" / "your_network.md").read_text(encoding="utf-8")
    module, frames = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    Path("mynet.py").write_text(module, encoding="utf-8")
    Path("frames.py").write_text(frames, encoding="utf-8")
    run("python frames.py")
    return tmp_path


def run(command: str) -> str:
    """What it prints; it ends with status 0."""
    added = next((words for start, words in QUICK.items() if start in command), [])
    words = [sys.executable, *command.split()[1:], *added]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)  # thirteen commands; twelve minutes on cores that others fill
def test_every_command_of_a_checkout_runs(folder):
    """Those that are installed: tests/distribution/test_installed.py."""
    shown = [line for line in commands(ROOT / "README.md") if re.search(r"python (hw_sim|export|-m esdnet)", line)]
    assert len(shown) == 13
    printed = {command.removeprefix(".venv/bin/").removeprefix("python "): run(command) for command in shown}
    for start, words in SAID.items():
        found = [text for command, text in printed.items() if command.startswith(start)]
        assert found
        assert all(words in text for text in found), start
    written = {"derained.png", "report.html", "energy.json", "ckpt_nir", "network.nir", "runs"}
    assert written <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_its_python_runs(folder):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (folder / "program.py").write_text(program, encoding="utf-8")
    assert "for images of 64x64" in run("python program.py")
    assert (folder / "small_nir" / "manifest.json").is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))))
def test_make_knows_what_it_is_told_to_make(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
