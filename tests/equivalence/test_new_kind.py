"""A kind of node that only the graph knows: everything else refuses it by name, and says which file wants a rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from export.graph import nodes as g
from export.graph.counting import count_node, operands_of
from export.graph.execute import execute_node
from export.graph.network import Network, infer_shapes
from export.graph.placement import on_host
from export.graph.receptive_field import find_halo
from export.graph.rounding import Rounding
from export.graph.values import output_shape, value_kind
from export.integer.quantize import quantize
from export.targets.nir.segments import expresses
from export.targets.onnx.write import to_model
from hw_sim.backends import simulator
from hw_sim.backends.lava.plan import make_plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Abs(g.Node):
    """|x|."""


output_shape.register(Abs)(lambda node, inputs, steps: inputs[0])
value_kind.register(Abs)(lambda node, inputs: g.ValueKind.ANALOG)


@pytest.fixture
def network(monkeypatch) -> Network:
    monkeypatch.setitem(g.FAN_IN, Abs, (1, 1))
    nodes = (g.Input(name="x"), Abs(name="size", inputs=("x",)), g.Output(name="y", inputs=("size",)))
    return Network(name="n", nodes=nodes, steps=1)


def bound(network: Network) -> float:
    rounding = Rounding(network, (8, 8), {})
    rounding.know("x", np.ones(1))
    return rounding.bound("size")


ASKED = {
    "export/graph/execute.py": lambda network: execute_node(
        network["size"], [torch.ones(1, 3, 8, 8)], 1, torch.float64
    ),
    "export/graph/placement.py": on_host,
    "export/graph/receptive_field.py": find_halo,
    "export/graph/rounding.py": bound,
    "export/targets/nir/segments.py": lambda network: expresses(network["size"], [(1, 3, 8, 8)]),
    "export/targets/onnx/write.py": lambda network: to_model(network, "float64"),
    "export/integer/quantize.py": lambda network: quantize(network, None),
}


@pytest.mark.parametrize("file", ASKED)
def test_who_has_no_rule_for_a_kind_says_so_and_where_it_goes(network, file):
    with pytest.raises(g.NetworkError, match=rf"size.*; add one to {file}"):
        ASKED[file](network)


def test_so_do_counting_and_lava(network):
    operands = operands_of(network, infer_shapes(network, 8, 8), network["size"])
    with pytest.raises(g.NetworkError, match=r"size.* kind abs"):
        count_node(network["size"], operands)
    with pytest.raises(g.NetworkError, match=r"size.* kind abs"):
        make_plan(network, (8, 8))
    with pytest.raises(g.NetworkError, match=r"size.* kind abs"):
        simulator.run(network, np.zeros((3, 8, 8)), precision="float64")
