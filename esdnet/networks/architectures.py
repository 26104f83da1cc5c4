"""The architectures there are. In: the name of a preset, or what a checkpoint stores of a configuration, or a
configuration. Out: a configuration, or the network of that configuration, with random weights.

A new architecture has a line in CONFIGS, its presets, and a `build`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeGuard

from esdnet.command.errors import UserError
from esdnet.networks.dual_stage.config import PRESETS as DUAL_STAGE_PRESETS
from esdnet.networks.dual_stage.config import DualStageConfig
from esdnet.networks.esdnet.config import PRESETS as ESDNET_PRESETS
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.nafnet.config import PRESETS as NAFNET_PRESETS
from esdnet.networks.nafnet.config import NAFNetConfig

if TYPE_CHECKING:
    from esdnet.networks.dual_stage.model import DualStage
    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.networks.nafnet.model import NAFNet

    Network = ESDNet | DualStage | NAFNet

Config = ESDNetConfig | DualStageConfig | NAFNetConfig
CONFIGS: dict[str, type[Config]] = {"esdnet": ESDNetConfig, "dual_stage": DualStageConfig, "nafnet": NAFNetConfig}
LEAST_MULTIPLE = 4  # divides what the sides of every architecture's images are multiples of; each checks its own
PRESETS: dict[str, Config] = {**ESDNET_PRESETS, **DUAL_STAGE_PRESETS, **NAFNET_PRESETS}


def preset(name: str) -> Config:
    """The configuration of that name, or a UserError that lists the names there are."""
    if name not in PRESETS:
        raise UserError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def name_of(config: Config) -> str:
    """The architecture's name in checkpoints."""
    return next(name for name, kind in CONFIGS.items() if isinstance(config, kind))


def config_of(architecture: object, values: dict[str, Any]) -> Config:
    """A configuration from its architecture's name and its `to_dict()`. UserError where either is unknown."""
    if architecture not in CONFIGS:
        raise UserError(f"architecture {architecture!r} is unknown: expected one of {', '.join(CONFIGS)}")
    return CONFIGS[str(architecture)].from_dict(values)


def is_network(module: object) -> TypeGuard[Network]:
    """Whether it is a network of one of these architectures."""
    return isinstance(getattr(module, "config", None), Config)


@singledispatch
def build(config: Config) -> Network:
    """The network of a configuration, float32, in training mode."""
    raise TypeError(f"no network is built from {config!r}")


@build.register(ESDNetConfig)
def _(config: ESDNetConfig) -> ESDNet:
    from esdnet.networks.esdnet.model import ESDNet

    return ESDNet(config)


@build.register(DualStageConfig)
def _(config: DualStageConfig) -> DualStage:
    from esdnet.networks.dual_stage.model import DualStage

    return DualStage(config)


@build.register(NAFNetConfig)
def _(config: NAFNetConfig) -> NAFNet:
    from esdnet.networks.nafnet.model import NAFNet

    return NAFNet(config)
