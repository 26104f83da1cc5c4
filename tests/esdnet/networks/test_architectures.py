"""Architectures by name: a checkpoint comes back as what it was, whatever it holds; an unknown one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.architectures import LEAST_MULTIPLE, PRESETS, build, config_of, name_of, preset
from esdnet.networks.checkpoint import load_checkpoint, load_network, save_checkpoint
from esdnet.networks.esdnet.config import ESDNetConfig
from export.readers.esdnet import lower

TINY = {"esdnet": "tiny", "dual_stage": "tiny_dual_stage", "nafnet": "tiny_nafnet"}


@pytest.fixture(params=TINY)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / f"{request.param}.pt"
    save_checkpoint(path, build(preset(TINY[request.param])))
    return path


def change(path: Path, **values: object) -> None:
    torch.save(torch.load(path, weights_only=True) | values, path)


def test_a_checkpoint_names_its_architecture_and_comes_back(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert content["architecture"] == saved.stem
    network = load_network(saved)
    assert network.config == preset(TINY[saved.stem])
    assert not network.training
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in network.state_dict().items())


def test_an_unknown_architecture_is_refused_by_name(saved: Path) -> None:
    change(saved, architecture="transformer")
    with pytest.raises(UserError, match="'transformer' is unknown: expected one of esdnet, dual_stage, nafnet"):
        load_network(saved)


def test_another_architecture_than_the_weights_is_refused(saved: Path) -> None:
    change(saved, architecture="esdnet" if saved.stem != "esdnet" else "nafnet")
    with pytest.raises(UserError, match="config: "):
        load_network(saved)


def test_without_a_name_it_is_an_esdnet(tmp_path: Path, tiny_model: torch.nn.Module) -> None:
    save_checkpoint(tmp_path / "a.pt", tiny_model)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["architecture"]
    torch.save(content, tmp_path / "a.pt")
    assert load_network(tmp_path / "a.pt").config == tiny_model.config


@pytest.mark.parametrize("name", ["dual_stage", "nafnet"])
def test_where_an_esdnet_is_needed_another_is_refused(name: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", build(preset(TINY[name])))
    with pytest.raises(UserError, match=f"a.pt: holds a {name} network, expected an ESDNet"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_being_stored(name: str) -> None:
    config = preset(name)
    assert config_of(name_of(config), config.to_dict()) == config


def test_switches_of_version_0_1_are_words_now() -> None:
    config = config_of("esdnet", {"dim": 8, "attention": False, "refinement": True})
    assert config == ESDNetConfig(dim=8, attention="none", refinement="frb")


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"preset 'huge' is unknown: expected one of tiny, .*small_dual_stage"):
        preset("huge")


def test_the_rivals_are_of_a_size() -> None:
    ours, rival = (
        sum(map(torch.numel, build(preset(f"small_{name}")).parameters())) for name in ("dual_stage", "nafnet")
    )
    assert abs(rival / ours - 1) < 0.01


@pytest.mark.parametrize("name", TINY.values())
def test_the_least_multiple_divides_that_of_every_network(name):
    model = build(preset(name))
    multiple = getattr(model, "size_multiple", None) or lower(model).size_multiple
    assert multiple % LEAST_MULTIPLE == 0
