"""Every notebook runs from top to bottom as committed, and its committed outputs are whole and small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT_S = 900  # half a minute on an idle core, ten times that on cores that many share


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What every cell printed."""
    return [
        "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_whole_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert str(Path.home()) not in path.read_text(encoding="utf-8")


@pytest.fixture
def kernel_config(monkeypatch) -> Iterator[Config]:
    """Of a kernel that other work on the machine does not disturb.

    Sockets in a folder of its own: TCP ports are chosen before the kernel starts, and may be taken when it does. One
    thread: two wait for each other at every operation while another process holds a core. A crash says where it was.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    with TemporaryDirectory(prefix="kernel-") as folder:  # tmp_path may be too long for the name of a socket
        yield Config(ConnectionFileMixin={"transport": "ipc", "connection_file": f"{folder}/kernel.json"})


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the kernel's own libraries
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_draws(path, kernel_config):
    committed = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        config=kernel_config,
        kernel_name="python3",
        timeout=LIMIT_S,
        startup_timeout=LIMIT_S,  # 60 s by default, which an import of torch may take on busy cores
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [output for cell in code for output in cell.outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) == sum("plt.show()" in cell.source for cell in code)
    assert texts(notebook)[0] == texts(committed)[0]  # nodes, layers, steps: the same on every machine
