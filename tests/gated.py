"""Gated ESDNets, and a picture on which their gates are open here and shut there: else nothing of them would show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from esdnet.networks.esdnet.config import Gate, preset
from esdnet.networks.esdnet.gate import LearntGate
from esdnet.networks.esdnet.model import ESDNet
from tests.conftest import run_in

KINDS: tuple[Gate, Gate] = ("learnt", "morphological")
every_kind = pytest.mark.parametrize("kind", KINDS)


def rainy(height: int = 48, width: int = 40) -> np.ndarray:
    """(3, height, width) in whole grey levels of [0, 1]: dim waves, and in the middle a few bright streaks."""
    rng = np.random.default_rng(height + width)
    rows, columns = np.mgrid[:height, :width]
    image = 0.35 + 0.1 * np.sin(rows / 9.0) * np.cos(columns / 7.0) + 0.01 * rng.random((3, height, width))
    for first in (width // 4, width // 2):
        image[:, height // 6 : 5 * height // 6, first] += 0.2
    return np.round(255 * np.clip(image, 0, 1)) / 255


def gated_model(kind: Gate, steps: int = 3) -> ESDNet:
    """Tiny, float64, eval mode, thresholds and gains as if learnt; a learnt gate is open on half of `rainy()`."""
    torch.manual_seed(1)
    model = ESDNet(replace(preset("tiny_gated"), gate=kind, steps=steps))
    learnt = {"threshold": (0.02, 0.1), "attn.gain": (0.5, 1.5), "time_weights.weight": (0.1, 0.4)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for ending, limits in learnt.items():
                if name.endswith(ending):
                    parameter.uniform_(*limits)
    model = run_in(model).double()
    if isinstance(model.gate, LearntGate):
        with torch.no_grad():
            features = model._embed(torch.from_numpy(rainy())[None])[:1]
            decided = model.gate.decide(model.gate.layers(features))
            middle = decided.median() + 1e-3 * decided.std()  # of two values that are next to each other
            model.gate.decide.get_parameter("bias").add_(model.gate.fires.exact_threshold - middle)
    return model
