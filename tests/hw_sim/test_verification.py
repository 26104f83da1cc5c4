"""Every backend against torch, and against itself with one weight changed: it must be found, and its layer named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from esdnet.errors import UserError
from esdnet.model import ESDNet
from export.lower import lower
from hw_sim import simulator
from hw_sim.candidates import float_candidates
from hw_sim.result import Result
from hw_sim.verification import Candidate, Subject, judge, make_reference, simulate_layers, suspects, unexplained
from tests.conftest import slow_if_spike_driven

CANDIDATES = {f"{one.name}, {one.precision}": one for one in float_candidates("cpu")}
SIMULATOR = {one.precision: one for one in CANDIDATES.values() if one.name.startswith("simulator")}


@pytest.fixture(scope="module")
def reference(either_model, either_network, photo):
    return make_reference(Subject(either_model, either_network, photo))


def damaged(subject: Subject, parameter: str, by: float) -> Subject:
    """The same, with one weight changed, in the torch model and in the graph; all of a tensor where a single channel
    of spikes may be silent."""
    model = ESDNet(subject.model.config)
    model.load_state_dict(subject.model.state_dict())
    values = model.get_parameter(parameter).data.view(-1)
    values[: values.numel() if model.config.polarity == "on_off" else 1] += by
    return Subject(model.eval(), lower(model, subject.network.name), subject.image)


def run_or_skip(reference, candidate: Candidate, subject: Subject):
    row = judge(reference, candidate, subject)
    if row.status == "not run" and candidate.name == "Lava":
        pytest.skip(row.note)
    return row


@slow_if_spike_driven  # the exactness of each backend has its own test
@pytest.mark.parametrize("name", CANDIDATES)
def test_every_backend_keeps_the_promise(reference, name):
    row = run_or_skip(reference, CANDIDATES[name], reference.subject)
    assert row.status == "holds", row
    assert (row.mismatches, row.first) == (0, "") or row.precision == "float32"
    assert row.max_difference < (1e-9 if row.precision == "float64" else 1e-2)
    assert row.seconds > 0


SPIKE_FED, ANALOG = "encoder_level2.0.residual.1", "encoder_level1.0.shortcut.0"
DAMAGE = [(name, layer) for name in CANDIDATES for layer in (SPIKE_FED, ANALOG) if name != "Lava, float32"]


RUNS = [*DAMAGE, ("Lava, float32", ANALOG)]  # Lava takes seconds to start
FAST = ("simulator on cpu, float64", "simulator on cpu, float32")


@pytest.mark.parametrize(
    ("either_model", "name", "layer"),
    [
        *[("released", *run) for run in RUNS],
        *[
            pytest.param("spike_driven", name, layer, marks=() if name in FAST else pytest.mark.slow)
            for name, layer in RUNS
        ],
    ],
    indirect=["either_model"],
)
def test_a_changed_weight_is_found_and_its_layer_named(reference, name, layer):
    candidate = CANDIDATES[name]
    row = run_or_skip(reference, candidate, damaged(reference.subject, f"{layer}.weight", 1.0))
    assert row.status == "FAILED", row
    named = row.note.split(": ")[0].split(", ")
    assert layer in named
    if candidate.run_layers is not None:  # it can be asked layer by layer
        assert named == [layer]
    assert all(name.startswith(layer.split(".")[0]) for name in named)  # nothing beyond that block is accused


def test_a_weight_behind_the_last_neuron_is_found_by_the_output(reference):
    subject = damaged(reference.subject, "output.0.bias", 0.01)
    plain = dataclasses.replace(SIMULATOR["float64"], run_layers=None)
    row = judge(reference, plain, subject)
    assert (row.status, row.mismatches) == ("FAILED", 0)
    assert row.note.endswith(": output differs by 1.0e-02, promised 1e-09")
    assert "output.0" in row.note
    assert "encoder" not in row.note


def test_a_count_that_differs_is_found(reference):
    def miscount(subject: Subject) -> Result:
        result = simulator.run(subject.network, subject.image, precision="float64")
        name = "down1_2.maxpool_conv.1"
        counts = {**result.counts, name: result.counts[name].plus(result.counts[name])}
        return dataclasses.replace(result, counts=counts)

    row = judge(reference, Candidate("x", "float64", miscount), reference.subject)
    assert (row.status, row.note) == ("FAILED", "down1_2.maxpool_conv.1: its counts differ, promised equal")


def refuse(subject: Subject) -> Result:
    raise UserError("Lava is not installed")


def die(subject: Subject) -> Result:
    raise RuntimeError("out of memory\nand more")


def test_what_cannot_run_is_not_run_and_what_dies_has_failed(reference):
    missing = judge(reference, Candidate("x", "float64", refuse), reference.subject)
    assert (missing.status, missing.note, missing.mismatches) == ("not run", "Lava is not installed", None)
    dead = judge(reference, Candidate("x", "float64", die), reference.subject)
    assert (dead.status, dead.note) == ("FAILED", "stopped by RuntimeError: out of memory")


def test_float32_must_reach_60_db(reference):
    def dim(subject: Subject) -> Result:
        result = simulator.run(subject.network, subject.image, precision="float32")
        return dataclasses.replace(result, output=result.output + np.float32(0.0011))  # 59.2 dB

    row = judge(reference, Candidate("x", "float32", dim), reference.subject)
    assert (row.status, row.note) == ("FAILED", "output at 59.2 dB, promised 60")


def test_a_spike_without_a_reason_is_found(reference):
    """In float32, without seeing values: the spikes of a run must follow from its own earlier spikes."""
    subject = reference.subject
    result = simulator.run(subject.network, subject.image, precision="float32")
    margin, failure = unexplained(subject, result)
    assert failure == ""
    assert margin < 1e-5
    name = "encoder_level3.0.residual.3"
    spikes = result.spikes[name].copy()
    spikes[2, 0, 0, 0] ^= True
    wrong = dataclasses.replace(result, spikes={**result.spikes, name: spikes})
    margin, failure = unexplained(subject, wrong)
    assert margin > 1e-5
    assert failure.startswith(f"encoder_level3.0.residual.1: {name}: a spike is ")


def test_given_values_replace_what_the_simulator_found(tiny_network, photo):
    free = simulate_layers(tiny_network, {"input": photo[None]}, "float64")
    result = simulator.run(tiny_network, photo, precision="float64")
    assert np.array_equal(free["derained"][0], result.output)
    name = "encoder_level1.0.residual.0"
    silent = simulate_layers(tiny_network, {"input": photo[None], name: np.zeros_like(free[name])}, "float64")
    assert np.array_equal(silent[name], free[name])  # what it found itself is still told
    assert not np.array_equal(silent["derained"], free["derained"])


def test_suspects_are_what_no_agreeing_neuron_has_seen(tiny_network):
    assert suspects(tiny_network, "encoder_level1.0.residual.0") == "patch_embed.proj"
    assert suspects(tiny_network, "encoder_level1.0.residual.3") == "encoder_level1.0.residual.1"
    accused = suspects(tiny_network, "down1_2.maxpool_conv.0").split(", ")
    assert accused[:2] == ["encoder_level1.0.residual.4", "encoder_level1.0.shortcut.0"]
    assert all(name.startswith("encoder_level1.0.") for name in accused)


def test_suspects_of_spikes_of_both_signs(spike_driven_network):
    assert suspects(spike_driven_network, "encoder_level1.0.residual.0.on") == "patch_embed.proj"
    off = "encoder_level1.0.residual.0.off"  # the ON half saw the same value and agreed: this neuron's own constants
    assert suspects(spike_driven_network, off) == off
    assert suspects(spike_driven_network, "encoder_level1.0.residual.3") == "encoder_level1.0.residual.1"
