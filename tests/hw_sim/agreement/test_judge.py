"""Every backend against torch, and against itself with one weight changed: it must be found, and its layer named."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph.nodes import NetworkError
from export.readers.esdnet import lower
from hw_sim.agreement.candidates import float_candidates, lava_ready
from hw_sim.agreement.judge import (
    SILENT,
    Candidate,
    Subject,
    judge,
    make_reference,
    reference_row,
    simulate_layers,
    unexplained,
)
from hw_sim.backends import simulator
from hw_sim.backends.result import Result
from tests.conftest import slow_if_spike_driven
from tests.ties import NEURON, tied_model

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
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "Lava, float32" else ()) for name in CANDIDATES]
)
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
        *[
            pytest.param("released", name, layer, marks=pytest.mark.slow if "Lava" in name else ())
            for name, layer in RUNS
        ],
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


def contradict(subject: Subject) -> Result:
    raise NetworkError("lif: declared spike, found torch.float64 values")


def contradict_layers(subject: Subject, given):
    raise NetworkError("no layers")


def die(subject: Subject) -> Result:
    raise RuntimeError("out of memory\nand more")


def test_what_cannot_run_is_not_run_and_what_fails_once_it_runs_has_failed(reference):
    """An error inside a backend is no excuse, whatever its type; only what is known before the run is."""
    subject = reference.subject
    missing = judge(reference, Candidate("x", "float64", die, ready=refuse), subject)
    assert (missing.status, missing.note, missing.mismatches) == ("not run", "Lava is not installed", None)
    for run, note in [
        (refuse, "stopped by UserError: Lava is not installed"),
        (contradict, "stopped by NetworkError: lif: declared spike, found torch.float64 values"),
        (die, "stopped by RuntimeError: out of memory"),
    ]:
        row = judge(reference, Candidate("x", "float64", run), subject)
        assert (row.status, row.note) == ("FAILED", note)
    refused = judge(reference, Candidate("x", "float64", die, ready=contradict), subject)  # a graph, not a machine
    assert (refused.status, refused.note) == ("FAILED", "lif: declared spike, found torch.float64 values")
    blind = dataclasses.replace(SIMULATOR["float64"], run_layers=contradict_layers)
    assert judge(reference, blind, subject).status == "FAILED"


@pytest.mark.parametrize("size", [(132, 64), (64, 132)])
def test_more_pixels_than_lava_takes_are_a_limit_known_before(size):
    if sys.version_info[:2] != (3, 10):
        pytest.skip("Lava exists for Python 3.10 alone")
    with pytest.raises(UserError, match=r"Lava: \d+x\d+ pixels, at most 128x128 at once; take a smaller --crop"):
        lava_ready(size)


def test_float32_must_reach_60_db(reference):
    def dim(subject: Subject) -> Result:
        result = simulator.run(subject.network, subject.image, precision="float32")
        return dataclasses.replace(result, output=result.output + np.float32(0.0011))  # 59.2 dB

    seen = dataclasses.replace(SIMULATOR["float32"], run=dim)  # layer by layer it is right
    row = judge(reference, seen, reference.subject)
    assert (row.status, row.note) == ("FAILED", "output at 59.2 dB, promised 60")
    row = judge(reference, Candidate("x", "float32", dim), reference.subject)
    assert row.status == "FAILED"
    assert row.note.endswith("its spikes make an output 0.0011 away, allowed 1e-05")


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


def test_a_float32_output_that_does_not_follow_from_its_spikes_is_found(reference):
    subject = reference.subject
    result = simulator.run(subject.network, subject.image, precision="float32")
    wrong = dataclasses.replace(result, output=result.output + np.float32(1e-3))
    assert "its spikes make an output 0.001 away, allowed 1e-05" in unexplained(subject, wrong)[1]


# --- near-ties: torch and the graph differ, and both are right --------------------------------------------------------


@pytest.fixture(scope="module")
def tied():
    """Torch's answer to a black image, where a whole channel lies on its threshold."""
    model = tied_model()
    return make_reference(Subject(model, lower(model, "tied"), np.zeros((3, 16, 16))))


EXACT = [name for name, one in CANDIDATES.items() if one.precision == "float64" and one.name != "Lava"]


@pytest.mark.parametrize("name", [*EXACT, pytest.param("Lava, float64", marks=pytest.mark.slow)])
def test_spikes_that_differ_by_near_ties_are_explained(tied, name):
    """But for the unfolded model, which is torch's: there they do not differ."""
    row = run_or_skip(tied, CANDIDATES[name], tied.subject)
    assert row.status == "holds", row
    assert (row.mismatches > 512) is not name.startswith("snnTorch")
    explained = f"{row.mismatches:,} spikes differ from torch's, by near-ties; none from the simulator's"
    assert (explained in row.note) is not name.startswith("snnTorch")


@pytest.mark.parametrize("name", EXACT)
def test_near_ties_excuse_nothing_else(tied, name):
    """A weight that is off by a thousandth, behind them: what follows from a near-tie is judged on torch's spikes."""
    layer = "encoder_level2.0.residual.1"
    model = ESDNet(tied.subject.model.config).double()
    model.load_state_dict(tied.subject.model.state_dict())
    model.get_parameter(f"{layer}.weight").data.mul_(1.001)
    row = judge(tied, CANDIDATES[name], Subject(model.eval(), lower(model, "tied"), tied.subject.image))
    assert row.status == "FAILED", row
    assert layer in row.note.split(": ")[0].split(", "), row


def test_executors_of_the_graph_do_not_differ_even_at_near_ties(tied):
    """Spikes as torch fired them in half of the channel, as the graph does in the other: near-ties each of them."""

    def half(subject: Subject) -> Result:
        result = simulator.run(subject.network, subject.image, precision="float64")
        mixed = result.spikes[NEURON].copy()
        mixed[:, :, :8] = tied.result.spikes[NEURON][:, :, :8]
        return dataclasses.replace(result, spikes={**result.spikes, NEURON: mixed})

    row = judge(tied, Candidate("x", "float64", half), tied.subject)
    assert row.status == "FAILED"
    assert f"{NEURON}, step 0: " in row.note
    assert row.note.endswith("(compared with the simulator: executors of one graph agree at near-ties too)")


# --- a run in which nothing spikes -----------------------------------------------------------------------------------


def test_a_silent_run_proves_nothing(photo):
    torch.manual_seed(0)
    model = ESDNet(dataclasses.replace(preset("tiny"), threshold=1e6)).eval()
    silent = make_reference(Subject(model, lower(model), photo[:, :16, :16]))
    assert silent.silent_run
    row = judge(silent, SIMULATOR["float64"], silent.subject)
    assert (row.status, row.note) == ("proves nothing", SILENT)
    assert reference_row("torch", "float64", silent).note == SILENT
    louder = Subject(model, lower(ESDNet(preset("tiny")).eval()), silent.subject.image)
    assert judge(silent, SIMULATOR["float64"], louder).status == "FAILED"  # it spiked where torch did not


def test_silent_layers_are_named(reference):
    name = next(iter(reference.result.spikes))
    loud = {key: np.ones_like(fired) for key, fired in reference.result.spikes.items()}

    def note(**spikes) -> str:
        result = dataclasses.replace(reference.result, spikes={**loud, **spikes})
        return reference_row("torch", "float64", dataclasses.replace(reference, result=result)).note

    assert note() == ""
    silenced = note(**{name: np.zeros_like(loud[name])})
    assert silenced == f"1 of {len(loud)} neuron layers silent, so not exercised: {name}"
