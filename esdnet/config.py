"""The architecture as a frozen value: everything that decides a network's shape and neurons, and the named presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from esdnet.errors import UserError

Block = Literal["srb", "ms_resnet", "sew_resnet", "ann_resnet"]
Norm = Literal["tdbn", "bn"]


@dataclass(frozen=True)
class ESDNetConfig:
    """One ESDNet. Blocks are given per level, finest first; `steps` is T.

    Defaults are those of the authors' released code (threshold 0.15, tau 2, so a membrane decay of 0.5); the paper's
    text names [4, 4, 8] and [2, 2] blocks, the code has a level-3 decoder of two more.
    """

    dim: int = 48
    encoder_blocks: tuple[int, int, int] = (4, 4, 8)
    decoder_blocks: tuple[int, int, int] = (2, 2, 2)
    steps: int = 4
    threshold: float = 0.15
    membrane_decay: float = 0.5
    surrogate_slope: float = 4.0
    block: Block = "srb"  # the residual block (paper, Table 3)
    norm: Norm = "tdbn"  # where batch norm weights start: tdbn at ALPHA * threshold, bn at 1 (Table 5)
    attention: bool = True  # MAU in every residual block (Table 5)
    refinement: bool = True  # FRB before the output (Table 5)

    def __post_init__(self) -> None:
        if self.dim < 1 or self.steps < 1 or min(self.encoder_blocks + self.decoder_blocks) < 1:
            raise UserError(f"config: dim, steps and every number of blocks must be at least 1, found {self}")
        if not 0.0 <= self.membrane_decay < 1.0:
            raise UserError(f"config: membrane_decay must lie in [0, 1), found {self.membrane_decay}")
        for name, choices in (("block", get_args(Block)), ("norm", get_args(Norm))):
            if getattr(self, name) not in choices:
                raise UserError(f"config: {name} must be one of {', '.join(choices)}, found {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as a checkpoint stores them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ESDNetConfig:
        """The inverse of to_dict; missing names take their defaults, unknown ones are refused."""
        try:
            fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            return cls(**fields)
        except TypeError as error:
            raise UserError(f"config: {error}") from error


PRESETS: dict[str, ESDNetConfig] = {
    "tiny": ESDNetConfig(dim=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)),
    "small_released": ESDNetConfig(dim=16, encoder_blocks=(2, 2, 4), decoder_blocks=(1, 1, 1)),
    "released": ESDNetConfig(),
}


def preset(name: str) -> ESDNetConfig:
    """The configuration of that name, or a UserError that lists the names there are."""
    if name not in PRESETS:
        raise UserError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
