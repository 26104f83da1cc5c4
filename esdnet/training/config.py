"""How a run trains and on what, as frozen values: the flags of the command are made of them, a run keeps them."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from esdnet.command.errors import UserError

LOSSES = {  # --loss -> the weights of its terms beside 1 - SSIM
    "ssim": {"l1_weight": 0.0, "log_weight": 0.0},
    "l1_ssim": {"l1_weight": 1.0, "log_weight": 0.0},
    "log_ssim": {"l1_weight": 0.0, "log_weight": 0.1},
}
CHANGEABLE = frozenset({"save_every", "validate_every", "validation_images"})  # of a run that is resumed


def _flag(default: Any, meaning: str, **options: Any) -> Any:
    """A field with a flag of its name; `options` are those of add_argument."""
    return field(default=default, metadata={"help": meaning, **options})


@dataclass(frozen=True)
class TrainingConfig:
    """How a run trains. Learning rates and crop are the paper's; steps and batch suit a CPU."""

    steps: int = _flag(10_000, "optimizer steps")
    batch: int = _flag(8, "crops per step and process")
    crop: int = _flag(64, "side of a crop in pixels")
    optimizer: str = _flag("adamw", "what moves matrices; all else AdamW does", choices=("adamw", "muon"))
    lr: float = _flag(1e-3, "peak learning rate")
    final_lr: float = 1e-7
    warmup: int = _flag(100, "warm-up steps")
    weight_decay: float = 1e-4
    clip: float = _flag(1.0, "largest gradient norm")
    ema: float = _flag(0.999, "decay of the averaged weights")
    l1_weight: float = _flag(1.0, "of l1_ssim's Charbonnier term")
    log_weight: float = _flag(0.0, "of log_ssim's logarithm of the squared error")
    ssim_on_luma: bool = False
    firing_price: float = _flag(0.0, "added to the loss per share of neurons that fire")
    distillation: float = _flag(0.0, "added to the loss per distance from --teacher, in units of its variance")
    seed: int = _flag(0, "of weights, data and validation")
    precision: str = _flag("float32", "bf16: mixed precision", choices=("float32", "bf16"))
    freeze_norm: bool = _flag(False, "train with the batch norms' running statistics, which stay as they are")
    save_every: int = _flag(100, "steps between last.pt")
    validate_every: int = _flag(500, "steps between validations")
    validation_images: int = _flag(8, "images scored each time")

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "save_every", "validate_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise UserError(f"training: {name} must be at least 1, found {getattr(self, name)}")
        if self.crop < 16 or self.crop % 4:
            raise UserError(f"training: crop must be a multiple of 4 and at least 16, found {self.crop}")
        for name in ("firing_price", "distillation"):
            if not getattr(self, name) >= 0:
                raise UserError(f"training: {name} must not be negative, found {getattr(self, name)}")
        if not 0 < self.final_lr <= self.lr:
            raise UserError(f"training: lr must be positive and at least {self.final_lr}, found {self.lr}")


@dataclass(frozen=True)
class DataConfig:
    """What a run is trained on and starts from; paths are absolute."""

    data: str = _flag("synthetic", "'synthetic', or a folder of pairs")
    photos: str | None = _flag(None, "clean photos for synthetic rain", metavar="DIR")
    streaks: str | None = _flag(None, "streak layers for synthetic rain", metavar="DIR")
    pasted: str | None = _flag(None, "folder of pairs whose rain layers are pasted", metavar="DIR")
    dry_share: float = _flag(0.05, "of synthetic crops: no rain")
    light_share: float = _flag(0.5, "of drawn rain: light rain")
    held_out: int = _flag(16, "photos kept for validation")
    init: str | None = _flag(
        None,
        "checkpoint whose weights the run starts from; a released one may start its spike-driven preset",
        metavar="FILE|NAME",
    )
    teacher: str | None = _flag(
        None, "checkpoint whose decoder features the network learns from too", metavar="FILE|NAME"
    )


def loss_name(weights: dict[str, Any]) -> str:
    """The --loss that a run's settings are those of."""
    if weights.get("log_weight"):
        return "log_ssim"
    return "l1_ssim" if weights["l1_weight"] else "ssim"


def add_flags(parser: argparse.ArgumentParser, config: type[TrainingConfig | DataConfig]) -> None:
    """A flag for each field that has one; None, or False, where it is not given."""
    for item in fields(config):
        options = dict(item.metadata)
        if not options:
            continue
        flag = "--" + item.name.replace("_", "-")
        meaning = options.pop("help")
        if isinstance(item.default, bool):
            parser.add_argument(flag, action="store_const", const=True, help=meaning)
            continue
        default = "" if item.default is None else f" (default: {item.default})"
        kind = str if item.default is None else type(item.default)
        parser.add_argument(flag, type=kind, help=meaning + default, **options)


def given_flags(arguments: argparse.Namespace, config: type[TrainingConfig | DataConfig]) -> dict[str, Any]:
    """The fields whose flags were given, by name."""
    values = {item.name: getattr(arguments, item.name, None) for item in fields(config)}
    return {name: value for name, value in values.items() if value is not None}


def check_unchanged(
    run: Path, begun: dict[str, Any], now: TrainingConfig | DataConfig, changeable: Collection[str] = CHANGEABLE
) -> None:
    """UserError that names the first setting in which a run that goes on would not be the one that began."""
    for name, value in asdict(now).items():
        if name not in changeable and value != begun[name]:
            raise UserError(
                f"{run}: the run began with {name} {begun[name]}, found {value}; resume it with the former, or start "
                "another from its weights with --init"
            )
