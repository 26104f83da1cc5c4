from __future__ import annotations

import numpy as np
import pytest

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import FAN_IN, NetworkError, ValueKind
from export.graph.values import output_shape, value_kind


def network(*nodes: g.Node, steps: int = 2, **fields) -> Network:
    """Input `image` with 2 channels, the nodes, and an Output of the last one."""
    return Network(
        name="test",
        nodes=(g.Input(name="image", channels=2), *nodes, g.Output(name="out", inputs=(nodes[-1].name,))),
        steps=steps,
        **fields,
    )


def conv(name: str, source: str, channels: int = 2, outputs: int = 3, **fields) -> g.Conv:
    return g.Conv(name=name, inputs=(source,), weight=np.ones((outputs, channels, 3, 3)), **fields)


def neuron(name: str, source: str, **fields) -> g.Neuron:
    return g.Neuron(name=name, inputs=(source,), threshold=np.array(1.0), membrane_decay=0.5, **fields)


def test_shapes_follow_the_graph():
    graph = network(
        g.Repeat(name="code", inputs=("image",)),
        neuron("lif", "code"),
        conv("c", "lif", stride=(2, 2), padding=(1, 1)),
        g.Resize(name="up", inputs=("c",), factor=2),
        g.Reduce(name="mean", inputs=("up",), axes="T"),
    )
    shapes = infer_shapes(graph, 10, 8)
    assert shapes["code"] == (2, 2, 10, 8)
    assert shapes["c"] == (2, 3, 5, 4)
    assert shapes["up"] == (2, 3, 10, 8)
    assert shapes["out"] == (1, 3, 10, 8)


def test_value_kinds_are_declared_by_the_producers():
    graph = network(
        g.Repeat(name="code", inputs=("image",)),
        neuron("a", "code"),
        neuron("b", "code"),
        g.Concat(name="both", inputs=("a", "b")),
        g.Resize(name="nearest", inputs=("both",), mode="nearest"),
        g.Reduce(name="pool", inputs=("nearest",), function="max", axes="HW"),
        g.Add(name="sum", inputs=("a", "b")),
        g.Concat(name="mixed", inputs=("a", "sum")),
        g.Resize(name="bilinear", inputs=("a",)),
        g.Mul(name="product", inputs=("a", "b")),
        g.Reduce(name="mean", inputs=("a",), axes="HW"),
    )
    spikes = {name for name, kind in graph.kinds.items() if kind is ValueKind.SPIKE}
    graded = {name for name, kind in graph.kinds.items() if kind is ValueKind.GRADED}
    assert spikes == {"a", "b", "both", "nearest", "pool"}
    assert graded == {"sum", "mixed"}


def test_arrays_of_a_node_cannot_be_changed():
    node = conv("c", "image")
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0] = 0


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([conv("c", "image"), conv("c", "image")], "c: the name is used twice"),
        ([conv("c", "later")], r"c \(conv\): reads later, which is not defined before it"),
        ([g.Add(name="s", inputs=("image",))], r"s \(add\): 1 inputs, expected 2"),
        ([g.Concat(name="k", inputs=("image",))], r"k \(concat\): 1 inputs, expected 2 or more"),
        ([conv("c", "image", channels=5)], r"c \(conv\): input has 2 channels, its weight expects 5"),
        ([conv("c", "image", channels=1, groups=2)], r"c \(conv\): 3 outputs do not split into 2 groups"),
        ([conv("c", "image", bias=np.zeros(7))], r"c \(conv\): bias \(7,\), expected \(3,\)"),
        ([g.Linear(name="l", inputs=("image",), weight=np.ones((1, 4)))], r"l \(linear\): axis C has 2, .* expects 4"),
        ([g.Repeat(name="r", inputs=("image",)), g.Repeat(name="q", inputs=("r",))], "q .*has 2 steps already"),
        ([g.Reduce(name="m", inputs=("image",), axes="X")], r"m \(reduce\): axes 'X'"),
        (
            [conv("c", "image"), g.Add(name="s", inputs=("c", "image"))],
            r"s \(add\): shapes .* do not fit",
        ),
        ([g.Input(name="second"), conv("c", "image")], "2 Input nodes, expected 1"),
        (
            [g.Neuron(name="n", inputs=("image",), threshold=np.ones((5, 1, 1)), membrane_decay=0.5)],
            r"n \(neuron\): constants .* do not fit",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused_by_node(nodes, message):
    with pytest.raises(NetworkError, match=message):
        network(*nodes)


def test_parameters_must_sum_to_the_models():
    with pytest.raises(NetworkError, match="nodes hold 3 parameters, the model 4"):
        network(conv("c", "image", source_parameters=3), model_parameters=4)


def test_sides_that_the_multiple_does_not_divide_are_refused():
    graph = network(conv("c", "image"), size_multiple=4)
    with pytest.raises(NetworkError, match="image of 10x8; both sides must be positive multiples of 4"):
        infer_shapes(graph, 10, 8)


def test_an_unknown_kind_has_no_rule():
    class Strange(g.Node):
        """A kind that nobody knows."""

    with pytest.raises(NetworkError, match="s: no shape rule for kind strange"):
        output_shape(Strange(name="s"), [], 1)
    with pytest.raises(NetworkError, match="s: no rule for what the value of kind strange is"):
        value_kind(Strange(name="s"), [])
    with pytest.raises(NetworkError, match="s: no rule for the inputs of kind strange; add one to FAN_IN"):
        network(Strange(name="s", inputs=("image",)))


def test_every_kind_of_node_has_its_rules():
    made = {value for value in vars(g).values() if isinstance(value, type) and issubclass(value, g.Node)}
    kinds = made - {g.Node, g.Spiking}
    assert set(FAN_IN) <= kinds
    assert all(set(kind.__mro__) & set(FAN_IN) for kind in kinds)
    assert all(value_kind.dispatch(kind) is not value_kind.dispatch(g.Node) for kind in kinds)
    assert all(output_shape.dispatch(kind) is not output_shape.dispatch(g.Node) for kind in kinds - {g.Input})
