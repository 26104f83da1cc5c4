"""The bounds hold for every kind of node, whatever the order of the sums, and name what they have no rule for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from export.graph import nodes as g
from export.graph.near_ties import membranes
from export.graph.network import Network
from export.graph.nodes import FAN_IN, NetworkError
from export.graph.rounding import EPS, MOST, Reach, Rounding
from export.graph.values import output_shape
from export.graph.witness import witness
from hw_sim.agreement.judge import simulate_layers
from tests.random_networks import RANDOM, random_without_neurons

NETWORKS = {**RANDOM, "without neurons": random_without_neurons}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("seed", range(6))
def test_a_float32_run_stays_within_the_bound_of_float32(kind, seed):
    """Every kind of node, against an evaluation whose roundings are 2^29 times as large: so must the bound be."""
    network = NETWORKS[kind](seed)
    image = np.random.default_rng(seed).random((3, 16, 12))
    exact = simulate_layers(network, {"input": image[None]}, "float64")
    given = {name: value.astype(np.float32).astype(np.float64) for name, value in exact.items()}
    exact, rough = (simulate_layers(network, given, precision) for precision in ("float64", "float32"))
    rounding = Rounding(network, (16, 12), {})
    for name, value in given.items():
        rounding.know(name, value)
    largest = 0.0
    for node in network.nodes:
        bound = rounding.bound(node.name) * 2.0**29
        if isinstance(node, g.Neuron):
            source = node.inputs[0]
            pair = (membranes(node, found[source], given[node.name]) for found in (exact, rough))
        else:
            pair = (found[node.name] for found in (exact, rough))
        one, other = pair
        deviation = float(np.abs(one - other).max())
        assert deviation <= bound, node.name
        largest = max(largest, deviation / bound if bound else 0.0)
    assert largest > 1e-4  # a bound that is no wish


def chain(weight: float, **fields) -> Network:
    nodes = (
        g.Input(name="image", channels=2),
        g.Repeat(name="code", inputs=("image",)),
        g.Conv(name="conv", inputs=("code",), weight=np.full((3, 2, 3, 3), weight), padding=(1, 1)),
        g.Neuron(name="lif", inputs=("conv",), threshold=np.array(0.5), membrane_decay=0.5, **fields),
        g.Output(name="out", inputs=("lif",)),
    )
    return Network(name="chain", nodes=nodes, steps=2)


def test_the_bound_of_a_convolution_by_hand():
    """18 terms and 8 roundings more, of a sum of magnitudes of 18 * 0.25 * 2."""
    rounding = Rounding(chain(-0.25), (4, 4), {})
    rounding.know("code", np.full((2, 2, 4, 4), -2.0))
    assert rounding.bound("conv") == pytest.approx((18 + 8) * EPS * 9.0)
    offset = Rounding(chain(-0.25), (4, 4), {"conv": 100.0})  # the terms of its batch norm cancelled in its bias
    offset.know("code", np.full((2, 2, 4, 4), -2.0))
    assert offset.bound("conv") == pytest.approx((18 + 8) * EPS * 109.0)
    # the membrane of two steps: 1 + 0.5 times the current
    assert rounding.bound("lif") == pytest.approx(1.5 * rounding.bound("conv") + (10 + 8) * EPS * 13.5)


def test_a_matrix_after_what_is_not_known_starts_from_its_error():
    assert Reach(2.0, 1e-10).summed(3.0, 1.0, 1).error == pytest.approx(3e-10, rel=1e-3)


def test_the_worst_case_is_never_an_excuse(tiny_model, tiny_network, photo):
    found = witness(tiny_model, tiny_network, photo[:, :16, :16])
    assert all(0 <= found.bounds[name] <= MOST * 1e6 for name in found.values)
    assert max(found.bounds.values()) < 1e-11
    vast = Rounding(chain(1e300), (4, 4), {})
    vast.know("code", np.ones((2, 2, 4, 4)))
    assert vast.bound("conv") <= MOST * 18e300


def test_a_kind_without_a_rule_is_refused_by_name(monkeypatch):
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Odd(g.Node):
        pass

    monkeypatch.setitem(FAN_IN, Odd, (1, 1))
    output_shape.register(Odd)(lambda node, inputs, steps: inputs[0])
    nodes = (g.Input(name="image"), Odd(name="odd", inputs=("image",)), g.Output(name="out", inputs=("odd",)))
    rounding = Rounding(Network(name="n", nodes=nodes, steps=1), (8, 8), {})
    rounding.know("image", np.ones(1))
    with pytest.raises(NetworkError, match=r"odd: no rounding rule for kind odd; add one to "):
        rounding.bound("out")
