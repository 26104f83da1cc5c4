"""Bundled checkpoints by name: found everywhere, unless a file of that name is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from esdnet.command.errors import UserError
from esdnet.networks.bundled import FOLDER, checkpoint_label, find_checkpoint
from esdnet.networks.checkpoint import load_checkpoint
from esdnet.networks.esdnet.config import preset


@pytest.mark.parametrize("name", ["small_spike_driven", "small_spike_driven.pt"])
def test_a_name_is_found_anywhere_and_loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_spike_driven").mkdir()  # a folder of that name, a run perhaps, is no checkpoint
    assert find_checkpoint(name) == FOLDER / "small_spike_driven.pt"
    assert load_checkpoint(name).config == preset("small_spike_driven")


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small_spike_driven.pt").touch()
    assert find_checkpoint("small_spike_driven.pt") == Path("small_spike_driven.pt")
    with pytest.raises(UserError, match="it is empty"):
        load_checkpoint("small_spike_driven.pt")


@pytest.mark.parametrize(("given", "found"), [("smal", "nothing"), ("runs/small_released", "nothing"), (".", "a dir")])
def test_an_unknown_name_lists_those_there_are(given: str, found: str) -> None:
    names = "small_dual_stage, small_gated, small_released, small_spike_driven, tiny_dual_stage"
    message = rf"expected a checkpoint file, found {found}.*; bundled ones, by name: {names}"
    with pytest.raises(UserError, match=message):
        find_checkpoint(given)


def test_labels_say_which_are_bundled(tmp_path: Path) -> None:
    assert checkpoint_label(find_checkpoint("small_released")) == "small_released.pt (bundled)"
    assert checkpoint_label(tmp_path / "small_released.pt") == str(tmp_path / "small_released.pt")
