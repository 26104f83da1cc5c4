"""What docs/semantics.md states of recordings and runs is what they give."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from export.readers.nir import read_nir
from export.readers.nir_neurons import SEMANTICS
from hw_sim.backends.simulator import run_sequence
from tests.export.readers.public_nir import EXTERNAL, needs_external

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "semantics.md").read_text(encoding="utf-8")
FILES = {
    "norse": "norse", "snnTorch": "snntorch", "SpiNNaker2": "spinnaker2", "nengo": "nengo", "exact": "exact",
    "sinabs": "sinabs", "Rockpool": "rockpool", "spyx": "spyx", "Lava, CPU, float": "lava_cpu_float",
    "Lava, CPU, fixed": "lava_cpu_fixed", "Loihi": "lava_loihi_fixed",
}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading that begins so."""
    (section,) = re.findall(rf"^{heading}.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_every_name_is_on_the_page():
    assert [row[0] for row in rows("## Semantics by name")] == list(SEMANTICS)


@needs_external
@pytest.mark.parametrize("row", rows("## The LIF"), ids=lambda row: row[0])
def test_the_recorded_lif(row):
    recorded = np.loadtxt(EXTERNAL / f"lif_{FILES[row[0]]}.csv", delimiter=",")
    assert np.flatnonzero(recorded[:, 2]).tolist() == [int(step) for step in row[1].split()]
    network = read_nir(
        EXTERNAL / "lif_norse.nir", semantics=row[2], reset=SEMANTICS[row[2]].reset or "v_reset"
    )  # fmt: skip
    found = run_sequence(network, (recorded[:, :1] > 0).astype(float)).output
    assert np.array_equal(found.ravel(), recorded[:, 2])


@needs_external
def test_what_the_page_says_of_recorded_voltages():
    """Formulas of nobody here: integers of Lava, nengo's exact step, a reset within the step, SpiNNaker2's factor."""
    found = {name: np.loadtxt(EXTERNAL / f"lif_{name}.csv", delimiter=",") for name in FILES.values()}
    inputs = found["norse"][:, 0].astype(int)
    tau, threshold = float(np.float32(0.0025)), float(np.float32(0.1))
    decay = np.exp(-1e-4 / tau)
    v = dict(lava_cpu_fixed=0.0, nengo=0.0, exact=0.0, spinnaker2=0.0)
    worst = dict.fromkeys(v, 0.0)
    for step, x in enumerate(inputs):
        late = inputs[step - 1] if step else 0
        before = v["exact"]
        v["lava_cpu_fixed"] = ((int(v["lava_cpu_fixed"]) * (4096 - 163)) >> 12) + 640 * late
        v["nengo"] = decay * v["nengo"] + (1 - decay) * x / threshold
        v["exact"] = decay * before + (1 - decay) * x
        v["spinnaker2"] = 0.96 * v["spinnaker2"] + 0.999804 * x
        for name, limit in (("lava_cpu_fixed", 1600), ("nengo", 1.0), ("spinnaker2", 2.5)):
            v[name] = 0.0 if v[name] > limit else v[name]
        if v["exact"] > threshold:
            crossed = tau * np.log((x - before) / (x - threshold))
            v["exact"] = x * (1 - np.exp(-(1e-4 - crossed) / tau))
        for name in v:
            worst[name] = max(worst[name], abs(v[name] - found[name][step, 1]))
    assert worst["lava_cpu_fixed"] == 0
    assert worst["nengo"] < 2e-15
    assert worst["exact"] < 3e-9
    assert worst["spinnaker2"] < 1e-6
    unlike = found["lava_loihi_fixed"][:, 1] != found["lava_cpu_fixed"][:, 1]
    assert np.array_equal(np.flatnonzero(unlike), np.flatnonzero(found["lava_cpu_fixed"][:, 2]))


def recorded_braille(name: str) -> np.ndarray:
    spikes = np.load(EXTERNAL / f"{name}_activity_noDelay_bias_zero.npy") != 0
    return spikes if spikes.shape == (256, 38) else spikes.T


@needs_external
@pytest.mark.parametrize("row", rows("## The Braille"), ids=lambda row: row[0])
def test_the_recorded_braille_network(row):
    name = {"SpiNNaker2": "s2"}.get(row[0], row[0].lower())
    norse, other = recorded_braille("norse"), recorded_braille(name)
    unlike = {
        shift: int((norse[max(0, -shift) : 256 - max(0, shift)] != other[max(0, shift) : 256 - max(0, -shift)]).sum())
        for shift in range(-3, 4)
    }
    best = min(unlike, key=lambda shift: unlike[shift])
    assert [int(other.sum()), unlike[best], best] == [int(cell) for cell in row[1:]]


@needs_external
def test_the_braille_network_here():
    frames = np.random.default_rng(0).random((256, 12)) < 0.05
    lines = re.findall(r"^\| (\w+), (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    first = None
    for semantics, reset, *numbers in lines:
        network = read_nir(
            EXTERNAL / "braille_noDelay_bias_zero.nir", semantics=semantics, reset=reset, carries="spike"
        )
        spikes = run_sequence(network, frames).spikes
        first = spikes["lif1.lif"] if first is None else first
        unlike = int((spikes["lif1.lif"] != first).sum())
        assert [int(spikes["lif1.lif"].sum()), unlike, int(spikes["lif2"].sum())] == [int(n) for n in numbers]
