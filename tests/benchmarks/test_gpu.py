"""The page of a GPU, made on a CPU: every line of it but CUDA's own; and without a GPU one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_steps
from benchmarks.gpu_device import fits
from hw_sim.verify import main as verify

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_it_is_one_line_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: --device cuda: no CUDA device is available; use --device cpu or auto\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_line_of_it_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--device",
        "cpu",
        "--checkpoints",
        "small_spike_driven",
        "--presets",
        "tiny_spike_driven",
        "tiny_dual_stage",
    ]
    sizes = ["--sides", "64", "--batch", "1", "--crop", "32", "--steps", "1", "--most-batch", "2"]
    assert gpu.main([*flags, *sizes, "--compile-backend", "eager", "-o", str(tmp_path)]) == 0
    assert "everything holds" in capsys.readouterr().out
    content = json.loads((tmp_path / "gpu.json").read_text())
    rows = content["verified"]["small_spike_driven"]
    assert {row["status"] for row in rows} <= {"reference", "holds", "not run"}
    assert {(row["backend"], row["precision"]) for row in rows} >= {
        ("simulator on cpu", "float64"), ("torch and simulator on cpu", "int8"),
    }  # fmt: skip
    assert content["int8"]["small_spike_driven"]["same"] is True
    for found in content["training"].values():
        ways = {way["way"]: way for way in found["ways"]}
        assert ways["CUDA graphs"]["note"] == "not run: CUDA graphs: a CPU has none"
        assert ways["torch.compile"]["loss"] == pytest.approx(ways["plain"]["loss"], rel=1e-6)
        assert ways["bf16"]["loss"] == pytest.approx(ways["plain"]["loss"], rel=0.1)
        assert found["most"] == 2
        assert found["at_most"]["seconds"] > 0
    assert content["energy"]["small_spike_driven"][0]["seconds_per_mp"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith("# On cpu\n")
    assert page.count("\n| small_spike_driven |") == len(rows) + 2
    assert "| small_spike_driven | the same file |" in page
    record = tmp_path / content["recorded"]["small_spike_driven"]
    assert record.name == "small_spike_driven.cpu.npz"
    compared = ["--image", str(ROOT / "docs" / "sample" / "rainy.png"), "--checkpoint", "small_spike_driven"]
    assert verify([*compared, "--reference", str(record), "--json", str(tmp_path / "v.json")]) == 0
    verified = {
        (row["backend"], row["precision"]): row["status"]
        for row in json.loads((tmp_path / "v.json").read_text())["rows"]
    }
    assert verified["recorded cpu", "float64"] == verified["recorded cpu", "int8"] == "holds"


def test_what_does_not_hold_is_said() -> None:
    row = {
        "backend": "simulator on cuda",
        "precision": "float64",
        "status": "FAILED",
        "note": "",
        "first": "lif1, step 0",
    }
    content = {
        "verified": {"a": [row, {**row, "status": "holds"}]},
        "int8": {"a": {"same": False}, "b": {"same": None}},
    }
    assert gpu.failures(content) == [
        "FAILED: a: simulator on cuda, float64: lif1, step 0",
        "FAILED: a: int8: another PNG",
    ]


def test_what_does_not_run_says_why_and_the_largest_batch_that_fits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = gpu_steps.measure("tiny_spike_driven", "torch.compile", "cpu", 1, 16, 1, "no such compiler")
    assert failed.seconds is None
    assert failed.note.startswith("FAILED: ")

    def step(self: gpu_steps.Steps) -> torch.Tensor:
        if len(self.rainy) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return torch.zeros(())

    monkeypatch.setattr(gpu_steps.Steps, "step", step)
    assert gpu_steps.largest_batch("tiny_spike_driven", "cpu", 16, 64) == 4
    assert gpu_steps.largest_batch("tiny_spike_driven", "cpu", 16, 3) == 2
    with pytest.raises(ZeroDivisionError):  # anything else is no lack of memory
        fits(lambda: 1 // 0)
