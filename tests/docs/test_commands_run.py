"""The commands of every page run, in a folder that has what they name: small files, and training of two steps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
from PIL import Image

from esdnet.images.files import save_image
from esdnet.networks.architectures import build, preset
from esdnet.networks.checkpoint import save_checkpoint
from tests.docs.pages import PAGES, ROOT, commands
from tests.esdnet.command.cluster import cluster

OF_THEIR_OWN = {"README.md", "index.md", "derain.md", "count_anything.md", "your_network.md"}  # run beside this file
SHOWN = [page for page in PAGES if commands(page) and page.name not in OF_THEIR_OWN]
TRAIN = "--steps 2 --batch 1 --crop 32 --held-out 1 --threads 1"
SEARCH = "--steps 2 --batch 1 --held-out 1 --counted 1"
QUICK = {  # by what they run: added to a command, so that it does not take hours here
    "esdnet.train": TRAIN,
    "hw_sim/verify.py --image": "--crop 16",
    "benchmarks.league": "--hours 1e-4 --batch 1 --held-out 1 --networks small_two_unets small_spike_driven",
    "benchmarks.spike_driven": SEARCH,
    "benchmarks.ablations": SEARCH,
    "hw_sim/energy.py --image photo.jpg": "--tile 128",  # on any other photo so large it chooses tiles by itself
}
MEANT = {  # by page: what stands for something, and something
    "lava.md": {r"\bF\b": "mynet.nir", r"\bX\b": "x"},
    "energy.md": {r"--images DIR": "--images LARGE"},
    "energy_models.md": {"SECONDS": "1e-3"},
    "report.md": {"LIST": "horowitz_fp32"},
    "training.md": {r"--data \.\.\.": "--data PAIRS", r"ema\.pt \.\.\.": "ema.pt --data PAIRS --out runs/c"},
    "scale.md": {r'"\$\(.*\)"': "tcp://HOST:8786", "/shared/": ""},
}
OF_LAVA = {"lava.md", "lava_dl.md"}  # which exists for Python 3.10 alone
WRITES_INTO_THE_CHECKOUT = r"\[--write\]"


def typed(command: str, page: Path) -> list[str]:
    """As someone would type it: without what stands in brackets, and with all of it."""
    for stands, something in MEANT.get(page.name, {}).items():
        command = re.sub(stands, something, command)
    command = re.sub(WRITES_INTO_THE_CHECKOUT, "", command)
    shorter = re.sub(r"\[.*?\]", "", command)
    longer = re.sub(r"\S+\|", "", re.sub(r"[\[\]]", "", re.sub(r"\[(--\S+ )?\S+\|", r"[\1", command)))
    return [re.sub(r" \.\.\.$", "", line).strip() for line in dict.fromkeys((shorter, longer))]


def test_typed():
    page = ROOT / "docs" / "energy_models.md"
    shown = "energy.py --image x.png [--against REPORT|nafnet] [--step-time SECONDS] ..."
    assert typed(shown, page) == [
        "energy.py --image x.png",
        "energy.py --image x.png --against nafnet --step-time 1e-3",
    ]
    assert typed("energy.py --image x.png", page) == ["energy.py --image x.png"]


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """What a checkout has that the pages name, and what one has of one's own."""
    for name in ("esdnet", "export", "hw_sim", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_images(tmp_path)
    for name in ("ckpt.pt", "checkpoint.pt", "small.pt", "runs/mine/ema.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(tmp_path / name, tiny_model)
    for name, network in (("dual", "tiny_dual_stage"), ("gated", "tiny_gated")):
        (tmp_path / "runs" / name).mkdir()
        for kind in ("best", "ema"):
            save_checkpoint(tmp_path / "runs" / name / f"{kind}.pt", build(preset(network)))
    page = (ROOT / "docs" / "your_network.md").read_text(encoding="utf-8")
    module, frames = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    (tmp_path / "mynet.py").write_text(module, encoding="utf-8")
    (tmp_path / "frames.py").write_text(frames, encoding="utf-8")
    (tmp_path / "nets").mkdir()
    run("python frames.py", tmp_path)
    for name in ("mynet.nir", "net.nir"):
        run(f"python export/to_nir.py mynet.py:network --input x.npy -o {name}", tmp_path)
    run("python export/to_nir.py ckpt.pt -o OUT", tmp_path)
    return tmp_path


def write_images(folder: Path) -> None:
    """One folder that is photos, patterns and pairs, by all its names; photos alone."""
    rng = np.random.default_rng(0)
    for part in (".", "input", "target"):
        (folder / "DIR" / part).mkdir(parents=True, exist_ok=True)
        for index in range(3):
            save_image(folder / "DIR" / part / f"{index}.png", rng.random((72, 80, 3)))
    for name in ("PHOTOS", "PAIRS", "PATTERNS", "clean", "streaks", "pairs"):
        (folder / name).symlink_to("DIR")
    for name in ("rainy.png", "x.png"):
        shutil.copy(ROOT / "docs" / "sample" / "rainy_64.png", folder / name)
    (folder / "LARGE").mkdir()
    with Image.open(ROOT / "docs" / "sample" / "rainy.png") as photo:
        photo.save(folder / "photo.jpg")
        photo.save(folder / "LARGE" / "0.png")


def write_counts(folder: Path) -> None:
    """A saved report, which the README's commands write."""
    run("python hw_sim/energy.py --image rainy.png --json energy.json", folder)


def write_lif(folder: Path) -> None:
    """A NIR file whose nodes all semantics have, and its frames."""
    ones = np.ones(4, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([8])}),
        "linear": nir.Linear(np.random.default_rng(0).random((4, 8), np.float32)),
        "lif": nir.LIF(tau=1e-3 * ones, r=10 * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones),
        "output": nir.Output({"output": np.array([4])}),
    }
    nir.write(folder / "net.nir", nir.NIRGraph(nodes, list(pairwise(nodes))))
    np.save(folder / "x.npy", np.random.default_rng(1).random((20, 8)) < 0.4)


def run(command: str, folder: Path) -> None:
    """Its end with status 0. A run that it would begin anew is taken away."""
    words = command.removeprefix(".venv/bin/").removeprefix("python ")
    if (out := re.search(r"--out (\S+)", words)) and "--resume" not in words:
        shutil.rmtree(folder / out[1], ignore_errors=True)
    added = next((more for start, more in QUICK.items() if start in words and "--resume" not in words), "")
    done = subprocess.run(
        f"{sys.executable} {words} {added}",
        cwd=folder,
        shell=True,  # as it is typed
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words} {added}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


PREPARED = {"report.md": write_counts, "semantics.md": write_lif}  # by page: what only that one needs


@contextmanager
def scheduler(needed: bool, folder: Path) -> Iterator[str]:
    """Where a cluster of Dask's listens, if a page needs one."""
    if not needed:
        yield ""
        return
    (folder / "cluster").mkdir()
    with cluster(folder / "cluster") as started:
        yield started.address


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page, folder):
    if page.name in OF_LAVA:
        pytest.importorskip("lava")
    shown = commands(page)
    PREPARED.get(page.name, lambda folder: None)(folder)
    with scheduler(any("--scheduler" in command for command in shown), folder) as address:
        for command in shown:
            for line in typed(command, page):
                run(line.replace("tcp://HOST:8786", address), folder)
