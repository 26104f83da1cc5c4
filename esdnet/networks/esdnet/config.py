"""ESDNet as a frozen value: everything that decides its shape and neurons, and the named presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from esdnet.command.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

SIZE_MULTIPLE = 4  # of the sides of what runs at once: two levels of stride 2

Block = Literal["srb", "ms_resnet", "sew_resnet", "ann_resnet"]
Norm = Literal["tdbn", "bn"]
Shortcut = Literal["analog", "spikes"]
Polarity = Literal["on", "on_off"]
Attention = Literal["mixed", "static", "none"]
Upsampling = Literal["bilinear", "nearest"]
Refinement = Literal["frb", "time_weights", "time_mean"]
Coding = Literal["image", "features"]
Readout = Literal["analog", "spikes"]
Gate = Literal["none", "morphological", "learnt"]


@dataclass(frozen=True)
class NetworkConfig:
    """What decides a network's shape, of any architecture: numbers, words and tuples of numbers, by name."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as a checkpoint stores them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of to_dict; missing names take their defaults, unknown ones are refused."""
        try:
            return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
        except TypeError as error:
            raise UserError(f"config: {error}") from error


@dataclass(frozen=True)
class ESDNetConfig(NetworkConfig):
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
    shortcut: Shortcut = "analog"  # what a block's shortcut reads: X, or the spikes that its first neurons make of X
    polarity: Polarity = "on"  # neurons that read X: LIF(X), or the pair LIF(X), LIF(-X)
    learn_thresholds: bool = False  # `threshold` is where they start; every neuron layer then has its own
    attention: Attention = "mixed"  # in every block: MAU (Table 5), a learnt gain per step and channel, or none
    upsampling: Upsampling = "bilinear"  # bilinear, then neurons; or neurons, then nearest: spikes stay spikes
    refinement: Refinement = "frb"  # FRB on the time mean (Table 5), learnt weights over time, or the time mean alone
    coding: Coding = "image"  # what is repeated T times: the image, or its patch embedding, which is then made once
    readout: Readout = "analog"  # what the output convolution reads: the merged real values, or spikes
    gate: Gate = "none"  # where neurons may fire: everywhere, or where morphology or spiking layers see rain

    def __post_init__(self) -> None:
        if self.dim < 1 or self.steps < 1 or min(self.encoder_blocks + self.decoder_blocks) < 1:
            raise UserError(f"config: dim, steps and every number of blocks must be at least 1, found {self}")
        if not 0.0 <= self.membrane_decay < 1.0:
            raise UserError(f"config: membrane_decay must lie in [0, 1), found {self.membrane_decay}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"config: {name} must be one of {', '.join(choices)}, found {getattr(self, name)!r}")
        if self.readout == "spikes" and self.refinement == "frb":
            raise UserError("config: readout spikes leaves nothing for refinement frb; choose time_weights")
        if self.block == "ann_resnet" and self.learn_thresholds:
            raise UserError("config: learn_thresholds needs spiking neurons, found block ann_resnet")
        if self.gate != "none" and self._unlike_spike_driven():
            raise UserError(f"config: a gate is for spike-driven networks, found {self._unlike_spike_driven()}")
        if self.block != "srb" and (self.shortcut, self.polarity) != ("analog", "on"):
            raise UserError(f"config: shortcut and polarity belong to block srb, found block {self.block}")

    def _unlike_spike_driven(self) -> str:
        """What a gate cannot be in front of: "" if nothing."""
        needed = {
            "block": ("srb",), "attention": ("static", "none"), "upsampling": ("nearest",), "coding": ("features",),
            "refinement": ("time_weights",), "readout": ("analog",),
        }  # fmt: skip
        others = [f"{name} {getattr(self, name)}" for name, names in needed.items() if getattr(self, name) not in names]
        return ", ".join(others)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The same, of version 0.1 too."""
        once = {key: names[values[key]] for key, names in _ONCE_BOOLEAN.items() if isinstance(values.get(key), bool)}
        return super().from_dict(values | once)


_CHOICES = {
    "block": get_args(Block),
    "norm": get_args(Norm),
    "shortcut": get_args(Shortcut),
    "polarity": get_args(Polarity),
    "attention": get_args(Attention),
    "upsampling": get_args(Upsampling),
    "refinement": get_args(Refinement),
    "coding": get_args(Coding),
    "readout": get_args(Readout),
    "gate": get_args(Gate),
}
_ONCE_BOOLEAN = {"attention": ("none", "mixed"), "refinement": ("time_mean", "frb")}  # in checkpoints of version 0.1


def spike_driven(released: ESDNetConfig) -> ESDNetConfig:
    """The network of that size whose convolutions all read spikes, but for the first and the last."""
    return replace(
        released,
        shortcut="spikes",
        polarity="on_off",
        learn_thresholds=True,
        attention="static",
        upsampling="nearest",
        refinement="time_weights",
        coding="features",
    )


_TINY = ESDNetConfig(dim=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
_SMALL = ESDNetConfig(dim=16, encoder_blocks=(2, 2, 4), decoder_blocks=(1, 1, 1))
PRESETS: dict[str, ESDNetConfig] = {
    "tiny": _TINY,
    "small_released": _SMALL,
    "released": ESDNetConfig(),
    "tiny_spike_driven": spike_driven(_TINY),
    "small_spike_driven": spike_driven(_SMALL),
    "tiny_gated": replace(spike_driven(_TINY), steps=2, gate="learnt"),
    "small_gated": replace(spike_driven(_SMALL), steps=2, gate="learnt"),
    "wide_spike_driven": spike_driven(replace(ESDNetConfig(), dim=32)),
    "spike_driven": spike_driven(ESDNetConfig()),
    "gated": replace(spike_driven(ESDNetConfig()), steps=2, gate="learnt"),
}


def preset(name: str) -> ESDNetConfig:
    """The configuration of that name, or a UserError that lists the names there are."""
    if name not in PRESETS:
        raise UserError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
