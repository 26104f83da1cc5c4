"""Checkpoints: ours (architecture, config, weights) and the authors' released format, both read as data only, never as
code.

In: a path. Out: a ready network in eval mode, or a UserError in one line that says what the file lacks.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from esdnet.command.errors import UserError
from esdnet.command.writing import written_beside
from esdnet.networks.architectures import Config, build, config_of, name_of
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.model import ESDNet

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network

FORMAT = "esdnet-checkpoint-1"


def save_checkpoint(path: str | Path, model: Network, extra: dict[str, Any] | None = None) -> None:
    """Write architecture, config, weights and `extra` (plain values, lists, tensors); a crash leaves the old file."""
    path = Path(path)
    content = {
        "format": FORMAT,
        "architecture": name_of(model.config),
        "config": model.config.to_dict(),
        "state_dict": {key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
        "extra": extra or {},
    }
    with written_beside(path) as beside:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(content, beside)
        except RuntimeError as error:  # that is how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from error


def load_checkpoint(path: str | Path) -> ESDNet:
    """The ESDNet of a checkpoint, float32, on the CPU, in eval mode. UserError on anything that is not one."""
    model = load_network(path)
    if not isinstance(model, ESDNet):
        raise UserError(f"{path}: holds a {name_of(model.config)} network, expected an ESDNet")
    return model


def load_network(path: str | Path) -> Network:
    """The network of a checkpoint, a file or the name of a bundled one, of any architecture, float32, on the CPU, in
    eval mode. Where no architecture is named, as in files of version 0.1, it is an ESDNet.

    UserError on anything that is not one.
    """
    content = read_checkpoint(path)
    config: Config
    if content.get("format") == FORMAT:
        if not isinstance(content.get("config"), dict) or not isinstance(content.get("state_dict"), dict):
            raise UserError(f"{path}: damaged checkpoint: config or state_dict is missing; save it again")
        config, state = config_of(content.get("architecture", "esdnet"), content["config"]), content["state_dict"]
    else:
        state = content.get("state_dict", content)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"{path}: not an ESDNet checkpoint: expected a state_dict of tensors")
        state = {key.removeprefix("module."): value for key, value in state.items()}
        config = infer_config(path, state)
    model = build(config)
    _check_keys(path, model, state)
    model.load_state_dict(state)
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dictionary stored at `path`, or in a bundled checkpoint; tensors on the CPU (torch.load, weights_only)."""
    path = find_checkpoint(path)
    with path.open("rb") as file:
        head = file.read(2)
    is_torch_file = head == b"PK" or head[:1] == b"\x80"  # a zip archive, or a bare pickle
    try:
        with warnings.catch_warnings():  # a file that torch did not write is refused below, in one line
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, OSError, KeyError, IndexError) as error:
        reason = "it is not a PyTorch file" if path.stat().st_size else "it is empty"
        if is_torch_file and ("weights_only" in str(error) or "Unsupported" in str(error)):
            reason = "it holds more than weights (loading it could run code): refused; save its state_dict alone"
        raise UserError(f"{path}: cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or not content:
        found = f"a {type(content).__name__}" if content else "nothing"
        raise UserError(f"{path}: not an ESDNet checkpoint: expected a dictionary of weights, found {found}")
    return content


def infer_config(path: str | Path, state: dict[str, Tensor]) -> ESDNetConfig:
    """dim, blocks and T from the keys and shapes of the authors' state_dict (threshold and decay as their code has)."""

    def blocks(level: str) -> int:
        numbers = {int(found[1]) for key in state if (found := re.match(rf"{level}\.(\d+)\.", key))}
        return max(numbers, default=-1) + 1

    embed = state.get("patch_embed.proj.weight")
    time_mlp = state.get("encoder_level1.0.attn.ta.sharedMLP.0.weight")
    if embed is None or time_mlp is None or embed.ndim != 4 or time_mlp.ndim != 5:
        raise UserError(f"{path}: not an ESDNet checkpoint: patch_embed.proj.weight or the time attention is missing")
    encoder, decoder = ([blocks(f"{side}_level{level}") for level in (1, 2, 3)] for side in ("encoder", "decoder"))
    return ESDNetConfig(
        dim=embed.shape[0],
        encoder_blocks=(encoder[0], encoder[1], encoder[2]),
        decoder_blocks=(decoder[0], decoder[1], decoder[2]),
        steps=time_mlp.shape[1],
    )


def _check_keys(path: str | Path, model: Network, state: dict[str, Any]) -> None:
    """Every key, shape and value must be as the network needs them; the first that is not is named."""
    expected = model.state_dict()
    for key, value in expected.items():
        found = state.get(key)
        if not isinstance(found, Tensor):
            missing = sum(name not in state for name in expected)
            raise UserError(
                f"{path}: {key} is missing ({missing} of {len(expected)} keys): no weights of {model.config}"
            )
        if found.shape != value.shape:
            raise UserError(f"{path}: {key} has shape {tuple(found.shape)}, expected {tuple(value.shape)}")
        if not torch.isfinite(found).all():
            raise UserError(f"{path}: {key} holds NaN or infinite values; take an earlier checkpoint")
    unknown = [key for key in state if key not in expected]
    if unknown:
        raise UserError(f"{path}: {len(unknown)} unknown keys, the first {unknown[0]}: not weights of {model.config}")
