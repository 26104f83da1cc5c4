from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.architectures import preset
from esdnet.networks.checkpoint import load_checkpoint, load_network, save_checkpoint
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.model import ESDNet
from tests.conftest import GOLDEN


class RunsCode:
    """A pickle that would run a command when it is loaded."""

    def __reduce__(self):
        return (os.mkdir, ("ran-code",))


def test_a_checkpoint_comes_back_as_it_was(tmp_path, either_model):
    save_checkpoint(tmp_path / "a.pt", either_model, {"step": 3})
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.config == either_model.config
    assert not loaded.training
    expected = either_model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_format_is_read(tmp_path, golden, wrapped, prefix):
    state = {prefix + key: value for key, value in golden.state.items()}
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"lr": [0.1]}} if wrapped else state, tmp_path / "a.pt")
    model = load_checkpoint(tmp_path / "a.pt")
    assert model.config == ESDNetConfig(dim=16, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1), steps=4)


def test_every_key_of_the_released_dim_48_checkpoint_loads(tmp_path):
    shapes = json.loads((GOLDEN / "esdnet_release_dim48_state_dict_shapes.json").read_text())
    state = {key: torch.zeros(shape, dtype=torch.float32) for key, shape in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "a.pt")
    model = load_checkpoint(tmp_path / "a.pt")
    assert model.config == preset("released")
    assert set(model.state_dict()) == set(shapes)


def damaged(content):
    return lambda path: torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "expected a checkpoint file, found nothing"),
        (lambda path: path.mkdir(), "expected a checkpoint file, found a directory"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("hello"), "it is not a PyTorch file"),
        (lambda path: path.write_text("# A README\n"), "it is not a PyTorch file"),
        (damaged([1, 2]), "expected a dictionary of weights, found a list"),
        (damaged({}), "found nothing"),
        (damaged({"a": 1}), "expected a state_dict of tensors"),
        (damaged({"conv.weight": torch.zeros(3)}), "patch_embed.proj.weight or the time attention is missing"),
        (damaged(RunsCode()), "loading it could run code"),
        (lambda path: path.write_bytes(pickle.dumps(RunsCode())), "loading it could run code"),
    ],
)
def test_what_is_no_checkpoint_gets_one_clear_line(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path)
    assert "bad.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran-code").exists()


def test_missing_misshapen_unknown_and_nan_weights_are_named(tmp_path, golden):
    def message(change):
        state = {key: value.clone() for key, value in golden.state.items()}
        change(state)
        torch.save(state, tmp_path / "a.pt")
        with pytest.raises(UserError) as caught:
            load_checkpoint(tmp_path / "a.pt")
        return str(caught.value)

    key = "output.0.weight"
    assert "output.0.weight is missing (1 of" in message(lambda s: s.pop(key))
    assert "has shape (1,), expected (3, 32, 3, 3)" in message(lambda s: s.update({key: torch.zeros(1)}))
    assert "1 unknown keys, the first extra" in message(lambda s: s.update(extra=torch.zeros(1)))
    assert "output.0.weight holds NaN" in message(lambda s: s[key].fill_(float("nan")))


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, tiny_model):
    save_checkpoint(tmp_path / "a.pt", tiny_model)
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "a.pt" / "inside.pt", ESDNet(preset("tiny")))
    assert (tmp_path / "a.pt").read_bytes() == before


SHIPPED = sorted((Path(__file__).parents[3] / "esdnet" / "checkpoints").glob("*.pt"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_is_the_preset_of_its_name_with_a_model_card(path):
    model = load_network(path)
    assert model.config == preset(path.stem)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters" in card
    assert f"{path.stat().st_size / 1e6:.1f} MB" in card
