from __future__ import annotations

import numpy as np
import pytest

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.integer.to_loihi import loihi_network
from hw_sim.backends.simulator import run_sequence

RNG = np.random.default_rng(0)
LIF = {"beta": np.array(0.75), "threshold": np.array(1.0), "reset": "zero", "delayed": False}


def network(*nodes: g.Node, carries: str = "spike", last: str = "lif") -> Network:
    given = g.Input(name="x", channels=3, size=(6, 6), carries=carries, every_step=True)
    return Network(name="n", nodes=(given, *nodes, g.Output(name="y", inputs=(last,))), steps=1)


def conv(name: str = "conv", source: str = "x", **fields) -> g.Conv:
    return g.Conv(name=name, inputs=(source,), weight=RNG.normal(size=(4, 3, 3, 3)), **fields)


def frames() -> np.ndarray:
    return np.random.default_rng(1).random((50, 3, 6, 6)) < 0.3


def test_whole_numbers_of_one_step():
    made = conv(bias=np.array([0.1, -0.2, 0.0, 0.3]))
    integer = loihi_network(network(made, g.Leaky(name="lif", inputs=("conv",), **LIF)))
    step = np.abs(made.weight).max() / 127
    assert np.array_equal(integer["conv"].weight, np.rint(made.weight / step))
    assert integer["conv"].bias is None
    lif = integer["lif"]
    assert (lif.current_decay, lif.membrane_decay, float(lif.threshold)) == (4096, 1024, round(1.0 / step))
    assert np.array_equal(lif.bias[:, 0, 0], np.rint(made.bias / step))


def test_exact_weights_fire_exactly_the_same():
    """Weights, threshold and decay that Loihi holds: nothing is rounded but the membrane, below 2^-6 of a step."""
    weight = RNG.integers(-127, 128, (4, 3, 3, 3)) / 64.0
    weight.flat[0] = 127 / 64
    exact = g.Conv(name="conv", inputs=("x",), weight=weight)
    lif = g.Leaky(name="lif", inputs=("conv",), **{**LIF, "beta": np.array(1.0), "threshold": np.array(2.0)})
    floats = network(exact, lif)
    found, expected = run_sequence(loihi_network(floats), frames()).spikes["lif"], run_sequence(floats, frames()).spikes
    assert expected["lif"].sum() > 100
    assert np.array_equal(found, expected["lif"])


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_pools_between_weights_and_neurons(pool):
    pooled = g.Pool(name="pool", inputs=("conv",), function=pool, kernel=(2, 2), stride=(2, 2))
    floats = network(conv(bias=np.full(4, 0.2)), pooled, g.Leaky(name="lif", inputs=("pool",), **LIF))
    integer = loihi_network(floats)
    assert integer["pool"].function == "sum"
    found, expected = (run_sequence(one, frames()).spikes["lif"] for one in (integer, floats))
    assert expected.sum() > 20
    assert np.mean(found != expected) < 0.02


def test_recurrent_weights_share_the_step_of_the_neuron():
    rec = g.Linear(name="rec", inputs=("lif",), late=("lif",), weight=RNG.normal(size=(5, 5)) * 3)
    fc = g.Linear(name="fc", inputs=("flat",), weight=RNG.normal(size=(5, 108)))
    lif = g.Leaky(name="lif", inputs=("fc", "rec"), **{**LIF, "threshold": np.array(8.0)})
    integer = loihi_network(network(g.Flatten(name="flat", inputs=("x",)), fc, rec, lif))
    assert max(np.abs(integer[name].weight).max() for name in ("fc", "rec")) == 127
    assert integer["lif"].inputs == ("lif.sum",)
    assert run_sequence(integer, frames()).spikes["lif"].any()


def test_euler_neurons_decay_in_4096ths():
    lif = g.EulerNeuron(
        name="lif", inputs=("conv",), dt=1e-4, tau=np.array(8e-4), r=np.array(8.0), threshold=np.array(1.0),
        tau_syn=np.array(4e-4), w_in=np.array(4.0),
    )  # fmt: skip
    made = loihi_network(network(conv(), lif))["lif"]
    assert (made.membrane_decay, made.current_decay) == (512, 1024)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((conv(), g.Leaky(name="lif", inputs=("conv",), **{**LIF, "delayed": True})), "lif.*a step later, expected to"),
        ((conv(), g.Leaky(name="lif", inputs=("conv",), **{**LIF, "reset": "subtract"})), "lif.*reset 'subtract'"),
        ((g.Leaky(name="lif", inputs=("x",), **LIF),), "lif.*reads x, a input, expected weights"),
        ((conv(), g.Leaky(name="lif", inputs=("conv",), **{**LIF, "beta": np.arange(4.0).reshape(4, 1, 1) / 8})),
         "lif.*a beta for every neuron, expected one for the layer"),
        ((conv(bias=np.full(4, 1e4)), g.Leaky(name="lif", inputs=("conv",), **LIF)), "lif.*biases up to"),
        ((conv(), g.Activation(name="relu", inputs=("conv",)), g.Leaky(name="lif", inputs=("relu",), **LIF)),
         "lif.*reads relu, a activation"),
        ((conv(), g.Leaky(name="lif", inputs=("conv",), **LIF), conv("end")), "end.*read by nothing"),
    ],
)  # fmt: skip
def test_what_loihi_has_no_form_for_is_refused(nodes, message):
    with pytest.raises(NetworkError, match=message):
        loihi_network(network(*nodes))


def test_an_input_of_numbers_is_refused():
    with pytest.raises(NetworkError, match=r"x.*an input of numbers, expected spikes"):
        loihi_network(network(conv(), g.Leaky(name="lif", inputs=("conv",), **LIF), carries="analog"))
