"""The wheel, built without a network from a copy of the source tree, and an environment that it is installed into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import numpy as np
import pytest

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.model import ESDNet

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out", "runs")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a folder that is not the checkout, with no way back to it but what is installed."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def done(command: list[str], folder: Path) -> str:
    """The same; what it printed, if it ended with status 0."""
    finished = run(command, folder)
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def write_own_files(folder: Path, model: ESDNet) -> None:
    """What the README's commands name: a photo, a checkpoint, photos to train on, pairs to evaluate on."""
    save_checkpoint(folder / "ckpt.pt", model)
    shutil.copy(ROOT / "docs" / "sample" / "rainy_64.png", folder / "rainy.png")
    rng = np.random.default_rng(0)
    for name in ("PHOTOS", "PAIRS/input", "PAIRS/target"):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            save_image(folder / name / f"{index}.png", rng.random((40, 48, 3)))


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """All of the checkout but what tools left there: a build writes beside the sources."""
    folder = tmp_path_factory.mktemp("build") / "source"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=NOT_SOURCE)
    return folder


@pytest.fixture(scope="session")
def sdist(source) -> Path:
    """The source distribution."""
    return build("sdist", source)


@pytest.fixture(scope="session")
def wheel(sdist) -> Path:
    """The wheel, built from the source distribution: whatever that lacks, this lacks too."""
    unpacked = sdist.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return build("wheel", next(unpacked.iterdir()))


def build(kind: str, folder: Path) -> Path:
    """One distribution, by the backend that pyproject.toml names, as it is installed here."""
    code = f"from setuptools import build_meta; print('\\n' + build_meta.build_{kind}('{folder.parent}'))"
    return folder.parent / done([sys.executable, "-c", code], folder).splitlines()[-1]


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of a new environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    programs = new_environment(folder)
    done([str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], folder)
    return programs


def new_environment(folder: Path) -> Path:
    """The programs of an environment with pip, which sees what is installed here, but no editable checkout."""
    venv.create(folder, with_pip=True)
    ours = {scheme: sysconfig.get_path(scheme, vars={"base": str(folder), "platbase": str(folder)}) for scheme in LIBS}
    Path(ours["purelib"], "dependencies.pth").write_text("\n".join(sysconfig.get_path(scheme) for scheme in LIBS))
    return folder / "bin"


LIBS = ("purelib", "platlib")  # a line of a .pth file adds a folder; the .pth files in that folder are not read
