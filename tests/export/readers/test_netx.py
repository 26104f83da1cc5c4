from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.graph.nodes import NetworkError
from export.readers.netx import read_netx
from export.targets.loihi.check import check_available
from export.targets.onnx.run import run_sequence as run_onnx
from hw_sim import energy
from hw_sim.backends.simulator import run_sequence

SHARED = Path(__file__).parents[4] / "shared" / "external" / "lava_dl" / "pilotnet_lif"
RECORDED = ("conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2")
INTERVAL = 17  # steps between two resets of the recording
NEURON = {"type": b"CUBA", "iDecay": 1024, "vDecay": 512, "vThMant": 60, "refDelay": 1, "wgtExp": 0}

needs_pilotnet = pytest.mark.skipif(not SHARED.is_dir(), reason="PilotNet's recordings are not here")


def pilotnet() -> np.ndarray:
    """Its input, (T, C, H, W)."""
    return np.load(SHARED / "input.npy").transpose(3, 2, 1, 0)


def recorded(name: str) -> np.ndarray:
    spikes = np.moveaxis(np.load(SHARED / f"{name}.npy"), -1, 0)
    return spikes.transpose(0, 3, 2, 1) if spikes.ndim == 4 else spikes[..., None, None]


def write(path: Path, layers: list[dict]) -> Path:
    def fill(group: h5py.Group, values: dict) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                fill(group.create_group(key), value)
            else:
                group.create_dataset(key, data=np.array([value], "S10") if key == "type" and group.name.count("/") == 2
                                     else value)  # fmt: skip

    with h5py.File(path, "w") as file:
        top = file.create_group("layer")
        for number, layer in enumerate(layers):
            fill(top.create_group(str(number)), layer)
    return path


def layers(seed: int = 0) -> list[dict]:
    """A convolution, a recurrent layer, a dense one; currents and membranes that decay, biases of both signs."""
    rng = np.random.default_rng(seed)
    pairs = {"stride": [2, 2], "padding": [1, 1], "dilation": [1, 1]}
    return [
        {"type": b"input", "shape": [2, 7, 6], "neuron": NEURON, "weight": 40.0, "bias": 0.0},
        {"type": b"conv", "shape": [4, 4, 3], "inChannels": 2, "outChannels": 4, "kernelSize": [3, 3], "groups": 1,
         **pairs, "weight": rng.integers(-60, 61, (4, 2, 3, 3)), "bias": rng.integers(-20, 21, 4), "neuron": NEURON},
        {"type": b"flatten", "shape": [1, 1, 48]},
        {"type": b"dense_rec", "shape": [9, 1, 1], "inFeatures": 48, "outFeatures": 9, "neuron": NEURON,
         "weight": rng.integers(-50, 51, (9, 48)), "weight_rec": rng.integers(-50, 51, (9, 9)),
         "bias": rng.integers(-9, 10, 9)},
        {"type": b"dense", "shape": [5, 1, 1], "inFeatures": 9, "outFeatures": 5, "neuron": NEURON,
         "weight": rng.integers(-100, 101, (5, 9)), "bias": rng.integers(-9, 30, 5)},
    ]  # fmt: skip


def frames(steps: int = 40) -> np.ndarray:
    return np.random.default_rng(5).random((steps, 2, 7, 6)) < 0.4


@needs_pilotnet
def test_pilotnet_fires_what_was_recorded_in_every_layer():
    network = read_netx(SHARED / "network.net", INTERVAL)
    spikes = run_sequence(network, pilotnet()).spikes
    for found, name in zip(spikes.values(), RECORDED, strict=False):
        assert np.array_equal(found, recorded(name)), name
    assert len(spikes) == len(RECORDED) + 1
    assert not list(spikes.values())[-1].any()  # the last layer's threshold is out of reach


def step_by_step(given: np.ndarray, interval: int) -> list[np.ndarray]:
    """Spikes of the three layers of `layers`, by loops over integers: the page's equations, no code of the reader's."""
    net = layers()
    conv, rec, dense = net[1], net[3], net[4]
    sent = [np.zeros((4, 4, 3), int), np.zeros(9, int), np.zeros(5, int)]
    state = [(np.zeros(s.shape, int), np.zeros(s.shape, int)) for s in sent]
    out: list[list[np.ndarray]] = [[], [], []]
    before = np.zeros((2, 7, 6), int)
    for step, frame in enumerate(given.astype(int)):
        padded = np.pad(before, ((0, 0), (1, 1), (1, 1)))
        sums = np.zeros((4, 4, 3), int)
        for row in range(4):
            for column in range(3):
                window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                sums[:, row, column] = (conv["weight"] * window).sum((1, 2, 3))
        arrived = [sums, rec["weight"] @ sent[0].ravel() + rec["weight_rec"] @ sent[1], dense["weight"] @ sent[1]]
        biases = [conv["bias"][:, None, None], rec["bias"], dense["bias"]]
        fresh = []
        for number, (a, bias) in enumerate(zip(arrived, biases, strict=True)):
            u, v = state[number]
            if interval and step % interval == (number + 1) % interval:
                u, v = np.zeros_like(u), np.zeros_like(v)
            u = np.sign(u) * (np.abs(u) * (4096 - 1024) >> 12) + (a << 6)
            v = np.clip(np.sign(v) * (np.abs(v) * (4096 - 512) >> 12) + u + (bias << 6), 1 - 2**23, 2**23 - 1)
            fired = v > 60 << 6
            state[number] = (u, np.where(fired, 0, v))
            fresh.append(fired.astype(int))
            out[number].append(fired)
        before, sent = frame, fresh
    return [np.stack(spikes) for spikes in out]


@pytest.mark.parametrize("interval", [0, 13])
def test_layers_against_plain_integers(tmp_path, interval):
    network = read_netx(write(tmp_path / "n.net", layers()), interval or None)
    result = run_sequence(network, frames())
    expected = step_by_step(frames(), interval)
    for found, spikes in zip(result.spikes.values(), expected, strict=True):
        assert spikes.any()
        assert np.array_equal(found.reshape(spikes.shape), spikes)
    assert result.counts["3.dense_rec.weight_rec"].totals()["acs"] == 9 * int(expected[1][:-1].sum())


def test_onnx_runtime_fires_the_same(tmp_path):
    network = read_netx(write(tmp_path / "n.net", layers()))
    _, spikes = run_onnx(network, frames())
    for name, fired in run_sequence(network, frames()).spikes.items():
        assert np.array_equal(spikes[name], fired), name


@pytest.mark.slow  # Lava-DL takes ten seconds to import
@pytest.mark.parametrize("which", ["pilotnet", "recurrent"])
def test_lava_dl_itself_fires_the_same(tmp_path, which):
    try:
        check_available()
    except UserError as error:
        pytest.skip(str(error))
    if which == "pilotnet":
        if not SHARED.is_dir():
            pytest.skip("PilotNet's recordings are not here")
        net, given, depth, interval = SHARED / "network.net", pilotnet(), 10, INTERVAL
    else:
        net, given, depth, interval = write(tmp_path / "n.net", layers()), frames(), 5, 13
    np.save(tmp_path / "x.npy", given)
    command = [sys.executable, str(Path(__file__).parent / "run_netx.py"), str(net), "x.npy", "s.npy"]
    subprocess.run([*command, str(depth), str(interval)], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    found = list(run_sequence(read_netx(net, interval), given).spikes.values())[7 if which == "pilotnet" else 2]
    spikes = np.load(tmp_path / "s.npy")
    assert spikes.any()
    assert np.array_equal(spikes, found.reshape(spikes.shape))


def changed(number: int, **values) -> list[dict]:
    made = layers()
    made[number] = {**made[number], **values}
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (changed(1, type=b"pool"), "1.pool: a layer of type 'pool', expected input, conv, flatten, dense, dense_rec"),
        (changed(1, weight=np.full((4, 2, 3, 3), 0.5)), "1.conv: a weight that is no whole number"),
        (changed(1, weight=np.full((4, 2, 3, 3), 201)), "1.conv: weights from 201 to 201, expected -128 to 127"),
        (changed(1, neuron={**NEURON, "type": b"SDNN"}), "1.conv: SDNN neurons, expected LOIHI or CUBA"),
        (changed(1, neuron={**NEURON, "vThMant": 2**18}), "1.conv: vThMant 262144, expected a whole number from 0"),
        (changed(3, delay=np.ones(9)), "3.dense_rec: delays of synapses, expected none"),
        (changed(3, bias=np.full(9, 5000)), "3.dense_rec: biases up to 5000, expected 13 bits"),
        (layers()[1:], "0.conv: no input layer"),
        (layers()[:1], "no layer with neurons"),
        (changed(2, type=b"dense"), "2.dense: a matrix on"),
    ],
)
def test_what_cannot_be_expressed_is_refused(tmp_path, made, message):
    with pytest.raises(NetworkError, match=message.replace("(", r"\(").replace(".", r"\.")):
        read_netx(write(tmp_path / "n.net", made))


def test_bad_files_are_one_line(tmp_path):
    (tmp_path / "empty.net").touch()
    with pytest.raises(UserError, match="not an HDF5 file"):
        read_netx(tmp_path / "empty.net")
    with h5py.File(tmp_path / "foreign.net", "w") as file:
        file.create_dataset("x", data=1)
    with pytest.raises(UserError, match=r"no layers 0, 1, \.\.\., expected a \.net file"):
        read_netx(tmp_path / "foreign.net")


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "n.net", layers())
    np.save("x.npy", frames())
    options = ["--network", "n.net", "--input", "x.npy"]
    assert energy.main([*options, "--reset-interval", "13", "--save-output", "y.npy"]) == 0
    assert np.array_equal(np.load("y.npy"), step_by_step(frames(), 13)[2])
    assert energy.main([*options, "--precision", "float32"]) == 2
    assert "integers of 36 bits, which torch.float32 does not hold" in capsys.readouterr().err
    assert energy.main([*options, "--input-kind", "analog"]) == 2
    assert "takes spikes, what its input layer sends" in capsys.readouterr().err
