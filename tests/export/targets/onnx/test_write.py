"""Every kind of node as ONNX operators, against the simulator: exact, on numbers whose sums are exact in any order."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.graph import nodes as g
from export.graph.execute import execute_node
from export.graph.network import Network
from export.graph.nodes import FAN_IN, NetworkError
from export.graph.values import output_shape
from export.targets.onnx.run import execute, run_image
from export.targets.onnx.write import OPSET, exposed, to_model
from hw_sim.backends import simulator
from tests.conftest import slow_if_spike_driven
from tests.random_networks import random_gated
from tests.tolerances import FLOAT64_OUTPUT

STEPS = 3
SIZE = (10, 7)


def dyadic(*shape: int, seed: int = 0) -> np.ndarray:
    """Multiples of 1/16 in [-1, 1]."""
    return np.random.default_rng(seed).integers(-16, 17, shape) / 16


IMAGE = (dyadic(2, *SIZE, seed=7) + 1) / 2


def chain(*nodes: g.Node) -> Network:
    """image -> code (each step the same frame) -> lif (spikes that change over time) -> the nodes -> out."""
    first = [
        g.Input(name="image", channels=2),
        g.Repeat(name="code", inputs=("image",)),
        g.Neuron(name="lif", inputs=("code",), threshold=np.array(0.75), membrane_decay=0.5),
    ]
    return Network(name="chain", nodes=(*first, *nodes, g.Output(name="out", inputs=(nodes[-1].name,))), steps=STEPS)


def neuron(**fields) -> g.Neuron:
    values = {"threshold": np.array(0.75), "membrane_decay": 0.5, **fields}
    return g.Neuron(name="x", inputs=("code",), **values)


NODES = {
    "conv 3x3": g.Conv(name="x", inputs=("code",), weight=dyadic(4, 2, 3, 3), padding=(1, 1)),
    "conv on spikes": g.Conv(name="x", inputs=("lif",), weight=dyadic(4, 2, 3, 3), padding=(1, 1)),
    "conv with bias": g.Conv(name="x", inputs=("code",), weight=dyadic(4, 2, 1, 1), bias=dyadic(4)),
    "conv, stride 2": g.Conv(name="x", inputs=("code",), weight=dyadic(4, 2, 3, 3), stride=(2, 2), padding=(1, 1)),
    "conv, all uneven": g.Conv(
        name="x", inputs=("code",), weight=dyadic(4, 2, 2, 3), stride=(3, 2), padding=(1, 2), dilation=(2, 1)
    ),
    "conv in groups": g.Conv(name="x", inputs=("code",), weight=dyadic(4, 1, 3, 3), groups=2),
    "linear over channels": g.Linear(name="x", inputs=("code",), weight=dyadic(3, 2), bias=dyadic(3)),
    "linear over steps": g.Linear(name="x", inputs=("lif",), weight=dyadic(2, STEPS), axis="T"),
    "linear over steps with bias": g.Linear(name="x", inputs=("lif",), weight=dyadic(2, 3), bias=dyadic(2), axis="T"),
    "fires at the threshold": neuron(),
    "fires above the threshold": neuron(fires=">"),
    "a threshold per channel": neuron(threshold=np.array([0.5, 0.25])[:, None, None]),
    "soft reset": neuron(reset="by", reset_value=0.75),
    "reset to a value": neuron(reset_value=-0.5),
    "a current that lasts": neuron(current_decay=0.5),
    "gain and bias": neuron(gain=np.array([-1.0, 2.0])[:, None, None], bias=np.array(0.5)),
    "no leak at all": neuron(membrane_decay=1.0),
    "no memory": neuron(membrane_decay=0.0),
    "sum": g.Add(name="x", inputs=("code", "lif")),
    "product with one frame": g.Mul(name="x", inputs=("lif", "image")),
    "affine": g.Affine(name="x", inputs=("code",), scale=np.array(-0.5), offset=np.array(2.0)),
    "concat": g.Concat(name="x", inputs=("code", "lif", "code")),
    "max over steps": g.Reduce(name="x", inputs=("lif",), function="max", axes="T"),
    "mean over two": g.Reduce(name="x", inputs=("code",), axes="C"),
    "max over pixels": g.Reduce(name="x", inputs=("code",), function="max", axes="HW"),
    "relu": g.Activation(name="x", inputs=("code",), function="relu"),
    "bilinear": g.Resize(name="x", inputs=("code",)),
    "bilinear by 4": g.Resize(name="x", inputs=("code",), factor=4),
    "nearest by 3": g.Resize(name="x", inputs=("lif",), factor=3, mode="nearest"),
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("case", NODES)
def test_every_kind_computes_what_the_simulator_computes(case, precision):
    network = chain(NODES[case])
    model = to_model(network, precision)
    onnx.checker.check_model(model, full_check=True)
    expected = simulator.run(network, IMAGE, precision=precision)
    values = with_output(model, "x", network, IMAGE)
    assert values.dtype == precision
    assert np.array_equal(values, x_of(network, IMAGE, precision)), case
    spikes = run_image(model, network, IMAGE)[1]
    assert {name: int((spikes[name] != wanted).sum()) for name, wanted in expected.spikes.items()} == dict.fromkeys(
        spikes, 0
    )


def x_of(network: Network, image: np.ndarray, precision: str) -> np.ndarray:
    """The value of the node under test, by the simulator's rules."""
    dtype = getattr(torch, precision)
    values = {"image": torch.from_numpy(image).to(dtype)[None]}
    for node in network.nodes[1:-1]:
        values[node.name] = execute_node(node, [values[name] for name in node.inputs], STEPS, dtype)
    return values["x"].to(dtype).numpy()


def with_output(model: onnx.ModelProto, name: str, network: Network, image: np.ndarray) -> np.ndarray:
    return execute(exposed(model, [name]), {network.input.name: image[None]})[name]


def test_sigmoid_within_its_last_digit():
    network = chain(g.Activation(name="x", inputs=("code",), function="sigmoid"))
    found = with_output(to_model(network, "float64"), "x", network, IMAGE)
    assert np.abs(found - 1 / (1 + np.exp(-IMAGE))).max() < 1e-15


def test_the_golden_network_in_float64(golden, golden_network):
    output, spikes = run_image(to_model(golden_network, "float64"), golden_network, golden.input[0])
    assert np.abs(output - golden.output[0]).max() < FLOAT64_OUTPUT
    assert {name: int(value.sum()) for name, value in spikes.items()} == {
        name: int(count) for name, count in golden.spikes.items()
    }


def test_the_spike_driven_network_in_float64(spike_driven_network, photo):
    expected = simulator.run(spike_driven_network, photo, precision="float64")
    output, spikes = run_image(to_model(spike_driven_network, "float64"), spike_driven_network, photo)
    assert np.abs(output - expected.output).max() < FLOAT64_OUTPUT
    assert {name: int((spikes[name] != wanted).sum()) for name, wanted in expected.spikes.items()} == dict.fromkeys(
        spikes, 0
    )


@pytest.mark.parametrize("seed", range(4))
def test_gated_networks(seed):
    network, image = random_gated(seed), np.random.default_rng(seed).random((3, 15, 22))  # one that it must pad
    padded = np.pad(image, ((0, 0), (0, 1), (0, 0)), mode="edge")
    expected = simulator.run(network, padded, precision="float64")
    assert all(0.05 < gate.mean() < 0.95 for gate in expected.gates.values())
    model = to_model(network, "float64")
    onnx.checker.check_model(model, full_check=True)
    output, spikes = run_image(model, network, image)
    assert np.abs(output - expected.output[:, :15]).max() < FLOAT64_OUTPUT
    assert all(np.array_equal(spikes[name], wanted) for name, wanted in expected.spikes.items())
    for name, gate in expected.gates.items():
        assert np.array_equal(with_output(model, name, network, image)[:, 0], gate)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("size", "every"), [((24, 31), 9), ((17, 12), 4), ((3, 5), 2), ((1, 1), 2)])
def test_a_mask_of_whole_grey_levels(size, every, precision):
    """Few streaks and many, on a picture of 8 bits: the same to the last pixel, whatever the precision."""
    rng = np.random.default_rng(1)
    image = np.full((3, *size), 90) + rng.integers(0, 9, (3, *size))
    image[:, :, ::every] += 40
    mask = g.RainMask(name="mask", inputs=("image",), angles=(-28, 0, 9, 40), across=5, along=7, clip=20, threshold=8)
    wide = g.Pool(name="wide", inputs=("mask",), function="max", kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    flood = g.Flood(name="flood", inputs=("wide",), most=0.6)
    nodes = (g.Input(name="image"), mask, wide, flood, g.Output(name="out", inputs=("flood",)))
    network = Network(name="mask", nodes=nodes, steps=1)
    model = to_model(network, precision)
    value: torch.Tensor = torch.from_numpy(image / 255)[None]
    for node in (mask, wide, flood):
        value = execute_node(node, [value], 1, torch.float64)
        assert np.array_equal(with_output(model, node.name, network, image / 255), value.numpy()), node.name
    assert value.all() == (every < 9 and size[0] > 1)


def test_a_mean_over_windows_is_refused_by_name():
    pool = g.Pool(name="pool", inputs=("lif",), function="mean", kernel=(2, 2), stride=(2, 2))
    with pytest.raises(NetworkError, match=r"ONNX: pool \(pool\): a mean over windows, expected a maximum"):
        to_model(chain(pool))


@slow_if_spike_driven
def test_any_size_is_padded_as_torch_pads(either_model, either_network):
    model = to_model(either_network, "float32")
    for size in ((32, 32), (33, 21), (5, 62)):
        image = np.random.default_rng(0).random((3, *size)).astype(np.float32)
        output, _ = run_image(model, either_network, image)
        with torch.no_grad():
            expected = either_model(torch.from_numpy(image)[None])[0].numpy()
        assert output.shape == expected.shape == image.shape
        assert np.abs(output - expected).max() < 1e-3, size  # spikes may flip in float32; to_onnx checks layer by layer


def test_opset_names_and_metadata(either_network):
    model = to_model(either_network, "float32")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "steps": "4", "precision": "float32", "parameters": str(either_network.model_parameters),
    }  # fmt: skip
    made = {name for node in model.graph.node for name in node.output}
    assert made >= {node.name for node in either_network.nodes} - {"input"}
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output]
    assert dims == [[1, 3, "height", "width"]]
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


class Twist(g.Node):
    """A kind that no rule knows."""


def test_an_unknown_kind_is_refused_by_name(monkeypatch):
    output_shape.register(Twist, lambda node, inputs, steps: inputs[0])
    monkeypatch.setitem(FAN_IN, Twist, (1, 1))
    network = chain(Twist(name="strange", inputs=("code",)))
    with pytest.raises(NetworkError, match=r"^ONNX: strange \(twist\): no rule for this kind"):
        to_model(network)
