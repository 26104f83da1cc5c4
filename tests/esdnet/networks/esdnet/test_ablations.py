"""The ablations' configurations: what differs in each row, and that every one of them trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.ablations import BASE, TABLES
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.layers import FeatureRefinement, MixedAttention, TdBatchNorm
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet

ROWS = {f"{number}-{row.name}": row for number, table in TABLES.items() for row in table.rows}


def count(model: ESDNet, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("name", ROWS)
def test_every_row_builds_what_it_says_and_every_weight_gets_a_gradient(name: str) -> None:
    config = ROWS[name].config
    torch.manual_seed(0)
    model = ESDNet(config)
    blocks = sum(config.encoder_blocks) + sum(config.decoder_blocks)
    assert count(model, MixedAttention) == (blocks if config.attention == "mixed" else 0)
    assert count(model, FeatureRefinement) == (config.refinement == "frb")
    assert count(model, LIF) == (0 if config.block == "ann_resnet" else 2 * blocks + 5)
    image = torch.rand(2, 3, 16, 16)
    (model(image) - image).square().mean().backward()
    silent = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert silent == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_tables_share_the_full_network_and_differ_elsewhere() -> None:
    assert TABLES[3].rows[-1].config == TABLES[4].rows[2].config == TABLES[5].rows[-1].config == BASE
    assert len({row.config for row in ROWS.values()}) == 12
    assert [row.config.steps for row in TABLES[4].rows] == [1, 2, 4, 6]
    hidden = [ESDNet(row.config).encoder_level1[0].attn.ta.sharedMLP[0].out_channels for row in TABLES[4].rows]
    assert hidden == [1, 1, 1, 1]  # T / min(4, T), rounded down


def test_norms_differ_in_where_their_weights_start() -> None:
    for norm, first, last in (("bn", 1.0, 1.0), ("tdbn", 0.7071 * 0.15, 0.7071 * 0.15 * 0.2)):
        block = ESDNet(ESDNetConfig(8, (1, 1, 1), (1, 1, 1), norm=norm)).encoder_level1[0]
        assert isinstance(block.residual[2], TdBatchNorm)
        assert float(block.residual[2].weight[0].detach()) == pytest.approx(first)
        assert float(block.residual[5].weight[0].detach()) == pytest.approx(last)


def test_order_of_a_block() -> None:
    def kinds(block: str) -> list[str]:
        network = ESDNet(ESDNetConfig(8, (1, 1, 1), (1, 1, 1), block=block, attention="none"))
        return [type(module).__name__ for module in network.encoder_level1[0].residual]

    assert kinds("srb") == kinds("ms_resnet") == ["LIF", "StepConv", "TdBatchNorm"] * 2
    assert kinds("sew_resnet") == ["StepConv", "TdBatchNorm", "LIF"] * 2
    assert kinds("ann_resnet") == ["ReLU", "StepConv", "TdBatchNorm"] * 2


def test_a_configuration_without_the_newer_fields_is_the_full_network() -> None:
    old = {
        key: value for key, value in BASE.to_dict().items() if key not in ("block", "norm", "attention", "refinement")
    }
    assert ESDNetConfig.from_dict(old) == BASE


@pytest.mark.parametrize(("field", "found"), [("block", "resnet"), ("norm", "layer")])
def test_unknown_choices_are_refused(field: str, found: str) -> None:
    with pytest.raises(UserError, match=f"config: {field} must be one of .*, found '{found}'"):
        ESDNetConfig(**{field: found})
