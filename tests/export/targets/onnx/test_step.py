from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.readers.snntorch import read_snntorch
from export.targets.onnx.run import run_sequence as run_onnx
from export.targets.onnx.step import first_states, to_step_model
from hw_sim.backends.simulator import run_sequence
from tests.export.readers.snntorch_networks import NETWORKS, make
from tests.tolerances import FLOAT64_OUTPUT

RNG = np.random.default_rng(0)


def every_kind() -> Network:
    """A cycle, a delay per element, each kind of neuron, each pool."""
    column = np.linspace(0.5, 2.0, 4).reshape(4, 1, 1)
    nodes = (
        g.Input(name="x", channels=2, size=(6, 6), every_step=True),
        g.Conv(name="conv", inputs=("x",), weight=RNG.normal(size=(4, 2, 3, 3)), padding=(1, 1)),
        g.Conv(name="back", inputs=("lif",), late=("lif",), weight=RNG.normal(size=(4, 2, 1, 1)), groups=2),
        g.Add(name="sum", inputs=("conv", "back")),
        g.EulerNeuron(
            name="lif", inputs=("sum",), dt=1e-3, tau=column * 4e-3, r=column, v_leak=column / 8, tau_syn=column * 2e-3,
            w_in=column, threshold=np.array(0.3), v_reset=column / 9,
        ),
        g.Delay(name="delay", inputs=("lif",), steps=np.arange(4.0).reshape(4, 1, 1)),
        g.Neuron(
            name="neuron", inputs=("delay",), threshold=np.array(0.8), membrane_decay=0.75, current_decay=0.5,
            gain=np.array(0.7), bias=np.array(0.1), reset="by", reset_value=0.8,
        ),
        g.Euler(name="li", inputs=("neuron",), dt=1e-3, tau=np.array(5e-3)),
        g.Threshold(name="above", inputs=("li",), threshold=np.array(0.2)),
        g.Pool(name="max", inputs=("above",), function="max", kernel=(2, 2), stride=(2, 2)),
        g.Pool(name="sum pool", inputs=("neuron",), function="sum", kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
        g.Pool(name="mean", inputs=("sum pool",), function="mean", kernel=(1, 3), stride=(1, 1), padding=(0, 1)),
        g.Flatten(name="flat", inputs=("mean",)),
        g.Linear(name="fc", inputs=("flat",), weight=RNG.normal(size=(5, 36)), bias=RNG.normal(size=5)),
        g.Leaky(name="leaky", inputs=("fc",), beta=np.array(0.8), threshold=np.array(1.0), reset="erase"),
        g.Membrane(name="membrane", inputs=("leaky",)),
        g.Output(name="spikes", inputs=("leaky",)),
        g.Output(name="membranes", inputs=("membrane",)),
        g.Output(name="pooled", inputs=("max",)),
    )  # fmt: skip
    return Network(name="every kind", nodes=nodes, steps=1)


def assert_equal(network: Network, frames: np.ndarray) -> None:
    expected = run_sequence(network, frames)
    outputs, spikes = run_onnx(network, frames)
    assert sum(bool(found.any()) for found in expected.spikes.values()) > len(expected.spikes) / 2
    for name, fired in expected.spikes.items():
        assert np.array_equal(spikes[name], fired), name
    for name, values in (expected.outputs or {network.outputs[0].name: expected.output}).items():
        assert np.abs(outputs[name] - values).max() <= FLOAT64_OUTPUT * max(1.0, np.abs(values).max()), name


def test_every_kind_step_by_step():
    assert_equal(every_kind(), RNG.normal(size=(12, 2, 6, 6)))


@pytest.mark.parametrize("name", NETWORKS)
def test_snntorch_networks(name):
    module, x = make(name)
    assert_equal(read_snntorch(module, x), x)


def test_the_model_is_valid_and_says_its_states():
    model = to_step_model(every_kind())
    onnx.checker.check_model(model, full_check=True)
    states = first_states(model)
    assert states.keys() == {value.name for value in model.graph.input} - {"x"}
    assert states["lif/membrane/before"].max() == pytest.approx(0.25)
    assert states["delay/before"].shape == (3, 4, 6, 6)


def test_what_looks_at_all_steps_is_refused():
    nodes = (
        g.Input(name="x", channels=1, size=(2, 2), every_step=True),
        g.Reduce(name="mean", inputs=("x",), axes="T"),
        g.Output(name="y", inputs=("mean",)),
    )
    with pytest.raises(NetworkError, match=r"ONNX: mean \(reduce\): looks at all steps"):
        to_step_model(Network(name="n", nodes=nodes, steps=3))
