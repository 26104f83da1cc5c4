"""Training on two nodes, simulated on the loopback: two agents of torchrun; one node dies, and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.networks.checkpoint import read_checkpoint
from tests.esdnet.command.cluster import free_port

ROOT = Path(__file__).parents[2]
STEPS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in Linux's /proc"),
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("input", "target"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        for name in "abc":
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pairs" / folder / f"{name}.png")
    return tmp_path / "pairs"


def start(out: Path, *flags: str) -> list[subprocess.Popen[str]]:
    """Both nodes, each a group of processes of its own: an agent, and the one process that it starts."""
    port = str(free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nodes = []
    for rank in ("0", "1"):
        torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", rank, "--nproc-per-node", "1"]
        command = [sys.executable, *torchrun, "--master-addr", "127.0.0.1", "--master-port", port, "-m", "esdnet.train"]
        with (out.parent / f"{out.name}.{rank}.log").open("a") as log:
            begun = subprocess.Popen(
                [*command, "-o", str(out), *flags], env=environment, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        nodes.append(begun)
    return nodes


def processes_of(node: subprocess.Popen[str]) -> list[int]:
    """Its agent, and what that started: torchrun gives each a session of its own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found = [node.pid] if node.pid in parents else []
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def kill(node: subprocess.Popen[str]) -> None:
    """As when its power fails."""
    for pid in reversed(processes_of(node)):
        os.kill(pid, signal.SIGKILL)
    node.wait()


def finish(nodes: list[subprocess.Popen[str]]) -> list[int]:
    try:
        return [node.wait(timeout=300) for node in nodes]
    finally:
        for node in nodes:
            kill(node)


def test_a_node_dies_and_the_run_goes_on_to_the_same_weights(pairs: Path, tmp_path: Path) -> None:
    settings = ["--preset", "tiny_spike_driven", "--data", str(pairs), "--held-out", "1", "--validation-images", "1",
                "--batch", "1", "--crop", "32", "--steps", str(STEPS), "--save-every", "5", "--validate-every", "100",
                "--threads", "1", "--device", "cpu"]  # fmt: skip
    assert finish(start(tmp_path / "whole", *settings)) == [0, 0]
    parts = tmp_path / "parts"
    nodes = start(parts, *settings)
    try:
        while not (parts / "last.pt").exists() and all(node.poll() is None for node in nodes):
            time.sleep(0.02)
        kill(nodes[1])
        assert nodes[0].wait(timeout=300) != 0  # it cannot go on alone, and says so
    finally:
        kill(nodes[0])
    assert "parts: lost one of 2 processes at step " in (tmp_path / "parts.0.log").read_text()
    reached = read_checkpoint(parts / "last.pt")["extra"]["step"]
    assert 5 <= reached < STEPS
    assert finish(start(parts, "--resume", "--threads", "1", "--device", "cpu")) == [0, 0]
    whole, resumed = (read_checkpoint(folder / "last.pt") for folder in (tmp_path / "whole", parts))
    assert resumed["extra"]["step"] == STEPS
    for weights in (lambda run: run["state_dict"], lambda run: run["extra"]["ema"]):
        assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    assert processes_of(nodes[0]) == processes_of(nodes[1]) == []
