from __future__ import annotations

import numpy as np
import pytest

from export.graph import network as network_module
from export.graph.network import (
    FAN_IN,
    Add,
    Concat,
    Conv,
    Input,
    Linear,
    Mul,
    Network,
    NetworkError,
    Neuron,
    Node,
    Output,
    Reduce,
    Repeat,
    Resize,
    ValueKind,
    infer_shapes,
    output_shape,
    value_kind,
)


def network(*nodes: Node, steps: int = 2, **fields) -> Network:
    """Input `image` with 2 channels, the nodes, and an Output of the last one."""
    return Network(
        name="test",
        nodes=(Input(name="image", channels=2), *nodes, Output(name="out", inputs=(nodes[-1].name,))),
        steps=steps,
        **fields,
    )


def conv(name: str, source: str, channels: int = 2, outputs: int = 3, **fields) -> Conv:
    return Conv(name=name, inputs=(source,), weight=np.ones((outputs, channels, 3, 3)), **fields)


def neuron(name: str, source: str, **fields) -> Neuron:
    return Neuron(name=name, inputs=(source,), threshold=np.array(1.0), membrane_decay=0.5, **fields)


def test_shapes_follow_the_graph():
    graph = network(
        Repeat(name="code", inputs=("image",)),
        neuron("lif", "code"),
        conv("c", "lif", stride=(2, 2), padding=(1, 1)),
        Resize(name="up", inputs=("c",), factor=2),
        Reduce(name="mean", inputs=("up",), axes="T"),
    )
    shapes = infer_shapes(graph, 10, 8)
    assert shapes["code"] == (2, 2, 10, 8)
    assert shapes["c"] == (2, 3, 5, 4)
    assert shapes["up"] == (2, 3, 10, 8)
    assert shapes["out"] == (1, 3, 10, 8)


def test_value_kinds_are_declared_by_the_producers():
    graph = network(
        Repeat(name="code", inputs=("image",)),
        neuron("a", "code"),
        neuron("b", "code"),
        Concat(name="both", inputs=("a", "b")),
        Resize(name="nearest", inputs=("both",), mode="nearest"),
        Reduce(name="pool", inputs=("nearest",), function="max", axes="HW"),
        Add(name="sum", inputs=("a", "b")),
        Concat(name="mixed", inputs=("a", "sum")),
        Resize(name="bilinear", inputs=("a",)),
        Mul(name="product", inputs=("a", "b")),
        Reduce(name="mean", inputs=("a",), axes="HW"),
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
        ([Add(name="s", inputs=("image",))], r"s \(add\): 1 inputs, expected 2"),
        ([Concat(name="k", inputs=("image",))], r"k \(concat\): 1 inputs, expected 2 or more"),
        ([conv("c", "image", channels=5)], r"c \(conv\): input has 2 channels, its weight expects 5"),
        ([conv("c", "image", channels=1, groups=2)], r"c \(conv\): 3 outputs do not split into 2 groups"),
        ([conv("c", "image", bias=np.zeros(7))], r"c \(conv\): bias \(7,\), expected \(3,\)"),
        ([Linear(name="l", inputs=("image",), weight=np.ones((1, 4)))], r"l \(linear\): axis C has 2, .* expects 4"),
        ([Repeat(name="r", inputs=("image",)), Repeat(name="q", inputs=("r",))], "q .*has 2 steps already"),
        ([Reduce(name="m", inputs=("image",), axes="X")], r"m \(reduce\): axes 'X'"),
        (
            [conv("c", "image"), Add(name="s", inputs=("c", "image"))],
            r"s \(add\): shapes .* do not fit",
        ),
        ([Input(name="second"), conv("c", "image")], "2 Input nodes, expected 1"),
        (
            [Neuron(name="n", inputs=("image",), threshold=np.ones((5, 1, 1)), membrane_decay=0.5)],
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
    class Strange(Node):
        """A kind that nobody knows."""

    with pytest.raises(NetworkError, match="s: no shape rule for kind strange"):
        output_shape(Strange(name="s"), [], 1)
    with pytest.raises(NetworkError, match="s: no rule for what the value of kind strange is"):
        value_kind(Strange(name="s"), [])
    with pytest.raises(NetworkError, match="s: no rule for the inputs of kind strange; add one to FAN_IN"):
        network(Strange(name="s", inputs=("image",)))


def test_every_kind_of_node_has_its_rules():
    kinds = set(Node.__subclasses__()) & {value for value in vars(network_module).values() if isinstance(value, type)}
    assert set(FAN_IN) == kinds
    assert all(value_kind.dispatch(kind) is not value_kind.dispatch(Node) for kind in kinds)
    assert all(output_shape.dispatch(kind) is not output_shape.dispatch(Node) for kind in kinds - {Input})
