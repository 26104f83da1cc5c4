"""Gates under attack: a pixel of a level, all open and all shut, sides that are no multiples of 4. Every executor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from esdnet.images.crops import middle
from esdnet.images.tiling import Grid
from esdnet.networks.esdnet import model as esdnet_model
from esdnet.networks.esdnet.gate import Gates, at_all_levels
from export.graph import nodes as g
from export.graph.network import Network
from export.integer import run as integer_run
from export.integer.calibrate import quantize_on_images
from export.readers.esdnet import lower
from hw_sim.agreement.candidates import float_candidates
from hw_sim.agreement.integers import judge_oracle
from hw_sim.agreement.judge import Subject, judge, make_reference
from hw_sim.backends import integer_simulator, simulator
from hw_sim.backends.executor import Executor
from hw_sim.backends.result import Result, compare
from hw_sim.backends.tiled import run_image
from tests.export.integer.test_gates import PIXELS, with_gate
from tests.gated import KINDS, every_kind, gated_model, rainy
from tests.hw_sim.backends.lava.test_gates import needs_lava
from tests.tolerances import FLOAT64_OUTPUT

pytestmark = pytest.mark.slow

LEVELS = (1, 2, 3)
CANDIDATES = {
    one.name: one
    for one in float_candidates("cpu")
    if one.precision == "float64" and not one.name.startswith("snnTorch")  # which is torch, as the reference
}
MARKS = {"Lava": [needs_lava]}
every_candidate = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, [])) for name in CANDIDATES]
)


@pytest.fixture(scope="module", params=KINDS)
def subject(request) -> Subject:
    model = gated_model(request.param)
    return Subject(model, lower(model, request.param), rainy())


def busiest(result: Result, level: int) -> tuple[int, int]:
    """The open pixel of a level behind which most fires."""
    gate = result.gates[f"gate.level{level}"][0]
    fired = [spikes.sum((0, 1)) for spikes in result.spikes.values() if spikes.shape[2:] == gate.shape]
    row, column = np.unravel_index(np.argmax(np.sum(fired, axis=0) * gate), gate.shape)
    return int(row), int(column)


@pytest.mark.parametrize("level", LEVELS)
@every_candidate
def test_one_pixel_of_one_level_is_found(subject, name, level, monkeypatch) -> None:
    """Shut in torch alone, which all others are held against."""
    result = simulator.run(subject.network, subject.image, precision="float64")
    row, column = busiest(result, level)

    def one_shut(gate: torch.Tensor) -> Gates:
        gates = [each.clone() for each in at_all_levels(gate)]
        gates[level - 1][..., row, column] = 0
        return Gates(*gates)

    monkeypatch.setattr(esdnet_model, "at_all_levels", one_shut)
    found = judge(make_reference(subject), CANDIDATES[name], subject)
    assert found.status == "FAILED"
    assert found.mismatches


@pytest.mark.parametrize("level", LEVELS)
def test_one_pixel_of_one_level_is_found_by_the_oracle_of_integers(subject, level, monkeypatch) -> None:
    integer = quantize_on_images(subject.network, [PIXELS])
    rows, columns = middle(subject.image.shape[1:], (32, 32))
    row, column = busiest(integer_simulator.run(integer, subject.image[:, rows, columns]), level)
    behind_gate = integer_run.behind_gate

    def one_shut(operation, inputs, value):
        value = behind_gate(operation, inputs, value)
        if operation.name == f"gate.level{level}":
            value = value.clone()
            value[..., row, column] = 0
        return value

    assert judge_oracle(integer, subject).status == "holds"
    monkeypatch.setattr(integer_run, "behind_gate", one_shut)
    found = judge_oracle(integer, subject)
    assert found.status == "FAILED"
    assert found.mismatches


@pytest.mark.parametrize("open_", [True, False])
@every_candidate
def test_all_open_and_all_shut(subject, name, open_) -> None:
    network = of_what_is_read(with_gate(subject.network, {"gate.level1": int(open_)}))
    expected = simulator.run(network, subject.image, precision="float64")
    found = CANDIDATES[name].run(Subject(subject.model, network, subject.image))
    difference = compare(expected, found)
    assert difference.equal_spikes, difference
    assert difference.max_difference < FLOAT64_OUTPUT
    assert np.array_equal(found.output, subject.image) != open_


def of_what_is_read(network: Network) -> Network:
    """Without the layers of a learnt gate that a constant one replaces."""
    kept: list[g.Node] = []
    for node in reversed(network.nodes):
        if isinstance(node, g.Output) or any(node.name in reader.inputs for reader in kept):
            kept.insert(0, node)
    return replace(network, nodes=tuple(kept), model_parameters=sum(node.source_parameters for node in kept))


@pytest.mark.parametrize("size", [(33, 30), (50, 41), (18, 21)])
@every_kind
def test_sides_that_are_no_multiples_of_four(kind, size) -> None:
    """Padded like torch pads, gate and all; padding is executed and counted."""
    model, image = gated_model(kind), rainy(*size)
    network = lower(model)
    seen: list[Result] = []

    def run(part: np.ndarray) -> Result:
        seen.append(simulator.run(network, part, precision="float64"))
        return seen[-1]

    done = run_image(Executor(run), image.transpose(1, 2, 0), "float64", Grid(size, 0, 8, network.size_multiple))
    with torch.no_grad():
        expected = model(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(done.output.transpose(2, 0, 1) - expected).max() < FLOAT64_OUTPUT
    assert not np.array_equal(expected, image)
    (result,) = seen
    assert result.gates["gate.level1"].shape[1:] == tuple(-(-side // 4) * 4 for side in size)
    for level in LEVELS:
        gate, totals = result.gates[f"gate.level{level}"], done.counts[f"encoder_level{level}.0.residual.3"].totals()
        channels = result.spikes[f"encoder_level{level}.0.residual.3"].shape[1]
        assert totals["neuron_updates"] == network.steps * channels * int(gate.sum())
