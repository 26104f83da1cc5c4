"""Latencies, delays and processes, worked out by hand and checked as rules that hold on every network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import FAN_IN, NetworkError
from export.graph.values import output_shape, value_kind
from export.readers.esdnet import lower
from hw_sim.backends.lava.memory import check_memory
from hw_sim.backends.lava.plan import Leaf, Plan, StockLeaf, make_plan
from hw_sim.backends.lava.stock import is_stock
from tests.hw_sim.backends.lava.networks import STEPS, every_kind, relay

MODELS = [{"model": "fused"}, {"model": "fine"}, {"stock": True}]


def leaf(plan: Plan, name: str) -> Leaf:
    (found,) = (leaf for leaf in plan.leaves if isinstance(leaf, Leaf) and leaf.name == name)
    return found


def latency(plan: Plan, leaf_name: str) -> int:
    (outlet,) = leaf(plan, leaf_name).outlets
    return outlet.latency


def test_latencies_of_the_fine_model():
    plan = make_plan(every_kind(), (8, 8), model="fine")
    assert latency(plan, "a.out") == 0  # convolutions, neurons and sums cost nothing
    # attention: a matrix over T needs frame 2 before it sends frame 0; what follows in the process has all frames then
    assert latency(plan, "b.attn") == STEPS - 1 == 2
    assert [wire.delay for wire in leaf(plan, "b.out").wires] == [0, 2]  # the skip waits for the attention
    assert latency(plan, "c.two") == 2 + 2
    # c.two has 2 frames: c.one, a process of its own here, needs both: one step more. The image waits for all of it.
    assert latency(plan, "c.one") == 5
    assert {wire.value.name: wire.delay for wire in leaf(plan, "c.restored").wires} == {"c.last": 0, "image": 5}
    assert plan.latency == 5


def test_in_one_process_what_waited_once_does_not_wait_again():
    plan = make_plan(every_kind(), (8, 8), model="fused")
    assert [block.name for block in plan.blocks] == ["patch", "a", "b", "down", "up", "c"]
    assert latency(plan, "b") == 2
    assert latency(plan, "c") == plan.latency == 4  # c.one needs both frames of c.relu, but has them at once


def test_lavas_conv_adds_a_step():
    plan = make_plan(every_kind(), (8, 8), stock=True)
    conv = next(leaf for leaf in plan.leaves if isinstance(leaf, StockLeaf) and leaf.name == "down.conv")
    up = next(leaf for leaf in plan.leaves if isinstance(leaf, StockLeaf) and leaf.name == "up.lif")
    assert up.start == conv.start + 1


@pytest.mark.parametrize(("name", "blocks", "latency"), [("small_released", 11, 36), ("released", 22, 69)])
def test_released_networks_wait_once_for_each_attention_and_once_for_the_time_mean(name, blocks, latency):
    config = preset(name)
    # the timing does not depend on the channels
    network = lower(ESDNet(replace(config, dim=2)))
    assert sum(config.encoder_blocks + config.decoder_blocks) == blocks
    for choice in MODELS[:2]:
        assert make_plan(network, (8, 8), **choice).latency == (config.steps - 1) * (blocks + 1) == latency


@pytest.mark.parametrize("choice", MODELS)
@pytest.mark.parametrize("network", [every_kind(), relay()], ids=lambda network: network.name)
def test_every_node_runs_once_and_every_input_arrives_when_its_process_starts(network: Network, choice):
    plan = make_plan(network, (8, 8), **choice)
    sent = {plan.image.name: 0}
    for part in plan.leaves:
        for wire in part.wires if isinstance(part, Leaf) else []:
            assert wire.latency == sent[wire.value.name]
            assert wire.latency + wire.delay == part.start
        if isinstance(part, StockLeaf):
            assert sent[part.source.name] == part.start
            sent[part.result.name] = part.start + isinstance(part.node, g.Conv)
        else:
            sent |= {outlet.value.name: outlet.latency for outlet in part.outlets}
    ours = [node.name for part in plan.leaves if isinstance(part, Leaf) for node in part.nodes]
    stock = [part.node.name for part in plan.leaves if isinstance(part, StockLeaf)]
    covered = [*ours, *(name for name in stock if not name.endswith(".unbiased")), plan.image.name]
    assert sorted(covered) == sorted(node.name for node in network.nodes)
    assert len({part.name for part in plan.leaves if isinstance(part, Leaf)}) == sum(
        isinstance(part, Leaf) for part in plan.leaves
    )
    assert [sent[outlet.value.name] for outlet in plan.outputs] == [plan.latency]


def test_the_fine_model_gives_every_neuron_a_process_of_its_own():
    network = every_kind()
    plan = make_plan(network, (8, 8), model="fine")
    alone = [leaf.name for leaf in plan.leaves if len(leaf.nodes) == 1 and isinstance(leaf.nodes[0], g.Neuron)]
    assert alone == [neuron.name for neuron in network.neurons]


def test_spikes_travel_as_single_bytes_and_host_work_is_one_process():
    plan = make_plan(every_kind(), (8, 8), model="fine")
    assert leaf(plan, "a.conv1").wires[0].value.dtype == "bool"
    assert leaf(plan, "b.attn").nodes[0].name == "b.attn.mean"
    assert leaf(plan, "b.attn").nodes[-1].name == "b.attn.out"


@dataclass(frozen=True, kw_only=True, eq=False)
class Delay(g.Node):
    """A kind that the Lava backend does not know."""


@output_shape.register
def _(node: Delay, inputs, steps):
    return inputs[0]


@value_kind.register
def _(node: Delay, inputs):
    return inputs[0]


def test_a_kind_without_a_rule_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(FAN_IN, Delay, (1, 1))
    with pytest.raises(NetworkError, match="wait: the Lava backend has no rule for kind delay"):
        make_plan(relay(Delay(name="wait", inputs=("image",))), (8, 8))


LIF = {"name": "lif", "inputs": ("x",), "threshold": np.array(0.15), "membrane_decay": 0.5}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"fires": ">"}, True),
        ({"bias": np.ones((4, 1, 1))}, True),
        ({"reset": "by", "reset_value": 0.15}, False),
        ({"reset_value": 0.1}, False),
        ({"gain": np.array(-1.0)}, False),
        ({"threshold": np.full((4, 1, 1), 0.15)}, False),
        ({"membrane_decay": 0.9}, True),
        ({"membrane_decay": 0.1}, False),  # Lava computes 1 - (1 - 0.1), which is 0.09999999999999998
    ],
)
def test_which_neurons_lavas_own_can_express(change, expected):
    shapes = {"x": (4, 4, 8, 8), "lif": (4, 4, 8, 8)}
    assert is_stock(g.Neuron(**{**LIF, **change}), shapes, steps=4) is expected


def test_lavas_own_processes_run_at_every_step_so_not_once_an_image():
    node = g.Conv(name="conv", inputs=("x",), weight=np.ones((1, 1, 1, 1)))
    assert not is_stock(node, {"x": (1, 1, 8, 8)}, steps=4)
    assert is_stock(node, {"x": (4, 1, 8, 8)}, steps=4)
    assert not is_stock(g.Reduce(name="mean", inputs=("x",), axes="T"), {"x": (4, 1, 8, 8)}, steps=4)


def test_too_little_memory_is_said_before_the_start():
    network = relay(g.Affine(name="half", inputs=("image",), scale=np.array(0.5)))
    with pytest.raises(UserError, match=r"65536x65536 pixels need [\d,]+ MiB of shared memory, [\d,]+ MiB are free"):
        check_memory(make_plan(network, (65536, 65536), model="fine"))
