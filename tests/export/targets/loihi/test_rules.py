"""One negative test per limit of Loihi: the message has node, value and limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from export.graph.rules import DesignRuleError
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv, IntegerNeuron
from export.integer.quantize import quantize
from export.targets.loihi.rules import (
    Integers,
    check_loihi_limits,
    headroom_line,
    quantize_for_loihi,
    sums_fit,
    worst_sum,
)
from tests.random_networks import random_network

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def integer() -> IntegerNetwork:
    network = random_network(0)
    return quantize(network, dict.fromkeys((node.name for node in network.nodes), 1.0))


def change(integer: IntegerNetwork, kind: type, **fields) -> tuple[IntegerNetwork, str]:
    """The network with other constants in its first operation of a kind (of a conv: the first that neurons read)."""
    name = next(op.name for op in integer.operations if isinstance(op, kind) and getattr(op, "rescale", None) is None)
    operations = tuple(
        dataclasses.replace(op, **fields) if op.name == name else op for op in integer.operations
    )  # fmt: skip
    return IntegerNetwork(integer.network, operations), name


def test_a_network_within_the_limits_passes(integer):
    check_loihi_limits(integer, [PIXELS])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": np.array(150000)}, r"threshold 150000 needs 18 bits, Loihi has 17 without sign; the"),
        ({"threshold": np.array(-1)}, r"threshold -1 is below 0, Loihi has 17 without sign"),
        ({"bias": np.array([3, 4096])[:, None, None]}, r"bias 4096 needs 14 bits, Loihi has 13; the weights before it"),
        ({"bias": np.array(-4097)}, r"bias -4097 needs 14 bits, Loihi has 13"),
        ({"membrane_decay": 4096}, r"dv 4096, Loihi has 0 to 4095; choose a decay inside \(0, 1\)"),
        ({"current_decay": -1}, r"du -1, Loihi has 0 to 4095"),
    ],
)  # fmt: skip
def test_neurons_beyond_a_limit_are_named(integer, fields, message):
    changed, name = change(integer, IntegerNeuron, **fields)
    with pytest.raises(DesignRuleError, match=rf"Loihi: 1 violation of its design rules:\n  {name} \(LIF\): {message}"):
        check_loihi_limits(changed, [PIXELS])


def test_headroom_shows_the_largest_of_each(integer):
    fields = {"threshold": np.array(2**17 - 1), "bias": np.array([-4000, 7])[:, None, None]}
    changed, _ = change(integer, IntegerNeuron, **fields)
    line = headroom_line(changed)
    assert line.endswith("largest bias 4,000 of 4,095, threshold 131,071 of 131,071")
    read = [op for op in changed.operations if isinstance(op, IntegerConv) and op.rescale is None]
    assert f"cause: {max(worst_sum(changed, op) for op in read):,} of 131,071" in line


def test_limits_themselves_are_allowed(integer):
    fields = {"threshold": np.array(2**17 - 1), "bias": np.array([-4096, 4095])[:, None, None], "membrane_decay": 4095}
    changed, _ = change(integer, IntegerNeuron, **fields)
    check_loihi_limits(changed, [])


def wide_layer(integer: IntegerNetwork, height: int) -> tuple[IntegerNetwork, str]:
    """A layer of 127 everywhere and a kernel so high that its worst case leaves 18 bits."""
    conv = next(op for op in integer.operations if isinstance(op, IntegerConv) and op.rescale is None)
    weight = np.full((*conv.weight.shape[:2], height, 3), 127, np.int8)
    return change(integer, IntegerConv, weight=weight, weight_step=np.ones(len(weight)))


def test_sums_are_checked_in_the_worst_case_and_then_on_the_images(integer):
    """4 channels x 3 columns x 87 rows x 127 = 132,588 > 2^17 - 1, but no image can show that many spikes at once."""
    changed, name = wide_layer(integer, 87)
    assert worst_sum(changed, changed.by_name[name]) == 4 * 3 * 87 * 127
    assert list(sums_fit(Integers(changed, {name: 131071}))) == []
    (violation,) = sums_fit(Integers(changed, {name: 132588}))
    expected = "sums up to 132588 need 19 bits, Loihi has 18; make the layer narrower, or its weights smaller"
    assert violation == f"{name} (conv): {expected}"
    within, name = wide_layer(integer, 86)
    assert list(sums_fit(Integers(within, {}))) == []


def test_a_checkpoint_that_integers_cannot_hold_is_one_clear_error():
    """Weights a million times below the threshold: the integer threshold does not fit into 17 bits."""
    network = random_network(0, size=1e-7)
    with pytest.raises(DesignRuleError, match=r"lif\d+ \(LIF\): threshold \d+ needs \d\d bits, Loihi has 17"):
        quantize_for_loihi(network, [PIXELS])
