"""The int8 rows: what runs the integers must equal torch bit for bit, and a changed weight must be found."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from export.graph.nodes import NetworkError, ValueKind
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv
from export.integer.quantize import quantize
from export.integer.run import run_integer, to_pixels
from export.targets.loihi.netx import find_segments
from hw_sim.agreement import integers as integer_verification
from hw_sim.agreement.integers import (
    _spike_value,
    integer_candidates,
    judge_netx,
    judge_oracle,
    make_integer_reference,
)
from hw_sim.agreement.judge import Subject, judge
from tests.conftest import slow_if_spike_driven

LAYER = "encoder_level2.0.residual.1"
needs_lava = pytest.mark.skipif(sys.version_info[:2] != (3, 10), reason="Lava exists for Python 3.10 alone")


@pytest.fixture(scope="module")
def subject(either_model, either_network, photo):
    return Subject(either_model, either_network, photo[:, :16, :16])


@pytest.fixture(scope="module")
def integer(either_network):
    return quantize(either_network, {node.name: 4.0 for node in either_network.nodes})


@pytest.fixture(scope="module")
def reference(integer, subject):
    return make_integer_reference(integer, subject, "cpu")


def damaged(integer: IntegerNetwork) -> IntegerNetwork:
    """The same integers, but for the weights of one output channel of one convolution."""
    operations = []
    for operation in integer.operations:
        if operation.name == LAYER and isinstance(operation, IntegerConv):
            weight = operation.weight.copy()
            weight[0] = 127
            operation = dataclasses.replace(operation, weight=weight)
        operations.append(operation)
    return dataclasses.replace(integer, operations=tuple(operations))


def test_torch_in_integers_is_the_reference_and_fires(reference):
    assert sum(int(spikes.sum()) for spikes in reference.result.spikes.values()) > 1000
    assert np.array_equal(reference.result.output * 255, np.rint(reference.result.output * 255))


def test_the_numpy_oracle_is_a_second_witness_on_a_crop(integer, subject, monkeypatch):
    monkeypatch.setattr(integer_verification, "ORACLE_SIDE", 14)
    row = judge_oracle(integer, subject)
    assert (row.backend, row.status, row.mismatches, row.max_difference) == ("NumPy oracle", "holds", 0, 0.0), row
    assert row.note == "the middle 12x12 pixels, by an executor of its own, written from docs/int8.md"


def test_the_oracle_finds_a_changed_integer_and_names_its_layer(integer, subject):
    """Either of the two may be the one that is wrong."""
    for ours, theirs in ((integer, damaged(integer)), (damaged(integer), integer)):
        row = judge_oracle(ours, subject, theirs)
        assert row.status == "FAILED"
        assert row.note.startswith(f"{LAYER}: encoder_level2.0.residual.3, step ")


@needs_lava
@slow_if_spike_driven
def test_lava_equals_torch_bit_for_bit(integer, subject, reference):
    (candidate,) = integer_candidates(integer, "cpu")
    row = judge(reference, candidate, subject)
    assert (row.backend, row.status, row.mismatches, row.max_difference) == ("Lava", "holds", 0, 0.0), row


@pytest.mark.slow
@needs_lava
@slow_if_spike_driven
def test_a_changed_integer_on_lava_is_found_and_its_layer_named(integer, subject, reference):
    (candidate,) = integer_candidates(damaged(integer), "cpu")
    row = judge(reference, candidate, subject)
    assert row.status == "FAILED"
    assert row.note.startswith(f"{LAYER}: encoder_level2.0.residual.3, step ")


def test_beside_a_gpu_the_cpu_is_a_row_too(integer, subject, reference):
    cpu, lava = integer_candidates(integer, "cuda")
    assert lava.name == "Lava"
    row = judge(reference, cpu, subject)
    assert (row.backend, row.status, row.mismatches) == ("simulator on cpu", "holds", 0)
    wrong, _ = integer_candidates(damaged(integer), "cuda")
    assert judge(reference, wrong, subject).note.startswith(f"{LAYER}: ")


def test_what_a_segment_reads_is_what_its_source_gave(integer, subject, reference):
    """Spikes of neurons, side by side or enlarged: made again from the record of the neurons alone."""
    network = integer.network
    given = {}

    def observe(operation, inputs, value):
        if network.kinds[operation.name] is ValueKind.SPIKE:
            given[operation.name] = value.numpy().astype(bool)

    run_integer(integer, to_pixels(subject.image), observe)
    assert {segment.source for segment in find_segments(integer)} <= set(given)
    for name, value in given.items():
        assert np.array_equal(_spike_value(network, name, reference.result.spikes), value), name
    with pytest.raises(NetworkError, match=r"encoder_level1\.0\.out \(add\): does not pass on spikes, so no segment"):
        _spike_value(network, "encoder_level1.0.out", {**reference.result.spikes, **stream_inputs(network)})


def stream_inputs(network) -> dict[str, np.ndarray]:
    return {name: np.zeros((1, 1, 1, 1), bool) for name in network["encoder_level1.0.out"].inputs}


@needs_lava
@pytest.mark.slow  # netx alone takes ten seconds to import
def test_netx_segments_equal_and_a_changed_one_is_named(integer, reference):
    row = judge_netx(integer, reference)
    assert (row.status, row.mismatches) == ("holds", 0), row
    wrong = judge_netx(damaged(integer), reference)
    assert wrong.status == "FAILED"
    assert wrong.mismatches > 0
    assert LAYER in wrong.first.split(": ")[0].split(", ")


@pytest.mark.skipif(sys.version_info[:2] == (3, 10), reason="here Lava may be installed")
def test_without_lava_netx_is_not_run_and_says_why(integer, reference):
    row = judge_netx(integer, reference)
    assert row.status == "not run"
    assert row.note
