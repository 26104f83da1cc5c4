from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from esdnet.command.errors import UserError
from hw_sim.agreement import records
from hw_sim.agreement.judge import Subject
from hw_sim.agreement.records import check_record, find_record, identity, make_record, read_record, write_record
from hw_sim.backends import simulator, torch_model


@pytest.fixture(scope="module")
def subject(tiny_model, tiny_network, photo):
    return Subject(tiny_model, tiny_network, photo)


@pytest.fixture(scope="module")
def result(subject):
    model = type(subject.model)(subject.model.config)
    model.load_state_dict(subject.model.state_dict())
    return torch_model.run(model, subject.network, subject.image, precision="float64")


@pytest.fixture(scope="module")
def simulated(subject):
    return simulator.run(subject.network, subject.image, precision="float64")


@pytest.fixture
def path(tmp_path, subject, result):
    """A record as a GPU would write it; the device's name is ours."""
    facts = {"device": "some GPU", "torch": "2.3.1", "cuda": "12.1", **identity(subject.network, subject.image)}
    write_record(tmp_path / "gpu.npz", make_record(facts, {"float64": result}))
    return tmp_path / "gpu.npz"


def test_a_record_comes_back_as_it_was_written(path, subject, result):
    record = find_record(path, subject.network, subject.image)
    assert record.facts["device"] == "some GPU"
    assert np.array_equal(record.outputs["float64"], result.output)
    assert {name: counts for name, (counts, _) in record.spikes["float64"].items()} == {
        name: value.sum((1, 2, 3)).tolist() for name, value in result.spikes.items()
    }
    assert [one.name for one in path.parent.iterdir()] == ["gpu.npz"]


def test_the_simulator_is_held_against_the_record(path, subject, simulated):
    record = find_record(path, subject.network, subject.image)
    row = check_record(record, "float64", simulated)
    assert (row.backend, row.precision, row.status, row.mismatches) == ("recorded some GPU", "float64", "holds", 0)
    assert row.max_difference < 1e-9
    other = check_record(record, "int8", simulated)
    assert (other.status, other.note) == ("not run", "the record holds float64 only")


def test_a_spike_in_another_place_is_found_even_if_their_number_is_the_same(simulated, result):
    name = "down1_2.maxpool_conv.0"
    moved = result.spikes[name].copy()
    moved[1] = np.roll(moved[1], 1, axis=2)
    assert not np.array_equal(moved, result.spikes[name])
    facts = {"device": "some GPU"}
    record = make_record(facts, {"float64": dataclasses.replace(result, spikes={**result.spikes, name: moved})})
    row = check_record(record, "float64", simulated)
    assert (row.status, row.mismatches) == ("FAILED", None)
    assert row.first.startswith(f"{name}, step ")


def test_an_output_that_differs_is_found(simulated, result):
    record = make_record({"device": "some GPU"}, {"float64": dataclasses.replace(result, output=result.output + 1e-8)})
    row = check_record(record, "float64", simulated)
    assert row.status == "FAILED"
    assert row.max_difference == pytest.approx(1e-8, rel=1e-3)


def test_a_record_of_something_else_is_refused_if_it_was_asked_for(path, subject, golden_network):
    with pytest.raises(UserError, match="the record of another network"):
        find_record(path, golden_network, subject.image)
    with pytest.raises(UserError, match="the record of another image"):
        find_record(path, subject.network, subject.image + 0.001)
    renamed = dataclasses.replace(subject.network, name="the same under another name")
    assert find_record(path, renamed, subject.image).facts["device"] == "some GPU"


def test_a_record_that_ships_is_found_by_what_it_is_of(path, subject, golden_network, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", path.parent)
    found = records.packaged_record(subject.network, subject.image)
    assert found is not None
    assert found.facts["device"] == "some GPU"
    assert records.packaged_record(golden_network, subject.image) is None
    assert records.packaged_record(subject.network, subject.image + 0.001) is None
    monkeypatch.setattr(records, "FOLDER", path.parent / "none")
    assert records.packaged_record(subject.network, subject.image) is None


def test_a_silent_network_on_both_sides_proves_nothing(simulated):
    silent = {name: np.zeros_like(spikes) for name, spikes in simulated.spikes.items()}
    result = dataclasses.replace(simulated, spikes=silent)
    row = check_record(make_record({"device": "some GPU"}, {"float64": result}), "float64", result)
    assert row.status == "proves nothing"


NAME = "down1_2.maxpool_conv.0"
OF_EACH, FACTS, IMAGE = (
    "expected spikes and an output of each",
    "expected the facts device, torch, cuda",
    "like the image",
)
SPIKES = f"float64, {NAME}: expected its spikes per step"
EMPTIED = {
    "no spikes": (lambda content, arrays: content.update(spikes={}), OF_EACH),
    "no neurons": (
        lambda content, arrays: content["spikes"].update(float64={}),
        "encoder_level1.0.residual.0: expected",
    ),
    "a neuron less": (lambda content, arrays: content["spikes"]["float64"].pop(NAME), SPIKES),
    "no counts": (lambda content, arrays: content["spikes"]["float64"][NAME].__setitem__(0, []), SPIKES),
    "no hash": (lambda content, arrays: content["spikes"]["float64"][NAME].__setitem__(1, ""), SPIKES),
    "null": (lambda content, arrays: content["spikes"]["float64"].update({NAME: None}), SPIKES),
    "no output": (lambda content, arrays: arrays.pop("output/float64"), OF_EACH),
    "another output": (lambda content, arrays: arrays.update({"output/float64": np.zeros(3)}), IMAGE),
    "not a number": (lambda content, arrays: arrays["output/float64"].fill(np.nan), IMAGE),
    "no facts": (lambda content, arrays: content.update(facts={}), FACTS),
    "no device": (lambda content, arrays: content["facts"].update(device=""), FACTS),
    "another format": (lambda content, arrays: content.update(format="esdnet-gpu-record-2"), "not a record of this"),
}


@pytest.mark.parametrize("what", EMPTIED)
def test_a_record_with_emptied_fields_is_refused(path, subject, what):
    change, message = EMPTIED[what]
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    content = json.loads(str(arrays.pop("record")))
    change(content, arrays)
    np.savez(path, record=np.array(json.dumps(content)), **arrays)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        find_record(path, subject.network, subject.image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip"])
def test_what_is_no_record_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: cannot be read; expected a record that verify\.py --record wrote"):
        read_record(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"none\.npz: there is no such file"):
        read_record(tmp_path / "none.npz")


def test_another_npz_is_no_record(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="cannot be read"):
        read_record(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", record=np.array('{"format": "later"}'))
    with pytest.raises(UserError, match="not a record of this version"):
        read_record(tmp_path / "y.npz")
