"""Networks that many tests share: the authors' golden one, and a tiny one whose batch statistics have seen images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from esdnet.config import ESDNetConfig, preset
from esdnet.model import ESDNet
from export.lower import lower

GOLDEN = Path(__file__).parent / "golden"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """The authors' network at dim 16 as numbers: weights, input, output, spikes per LIF, operations per convolution."""
    with np.load(GOLDEN / "esdnet_release_dim16.npz") as file:
        arrays = {key: file[key] for key in file.files}

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    return SimpleNamespace(
        state={key: torch.from_numpy(value) for key, value in part("state_dict/").items()},
        input=arrays["input"],
        output=arrays["output"],
        spikes=part("spikes/"),
        operations=part("conv/"),
    )


@pytest.fixture(scope="session")
def golden_model(golden) -> ESDNet:
    """The golden network in torch, float64, eval mode."""
    model = ESDNet(ESDNetConfig(dim=16, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)))
    model.load_state_dict(golden.state)
    return model.double().eval()


@pytest.fixture(scope="session")
def golden_network(golden_model):
    """The golden network, lowered."""
    return lower(golden_model, "golden")


def run_in(model: ESDNet, seed: int = 0) -> ESDNet:
    """Give the batch norms statistics of random images, so that every layer fires and nothing folds to zero."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(2, 3, 32, 32, generator=generator))
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model() -> ESDNet:
    """A tiny ESDNet, float32, eval mode, that fires in every layer."""
    torch.manual_seed(1)
    return run_in(ESDNet(preset("tiny")))


@pytest.fixture(scope="session")
def tiny_network(tiny_model):
    """The tiny network, lowered."""
    return lower(tiny_model, "tiny")


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth random image (3, 32, 24) in [0, 1], float64."""
    rng = np.random.default_rng(5)
    coarse = rng.random((3, 9, 7))
    grown = np.kron(coarse, np.ones((1, 4, 4)))[:, :32, :24]
    return np.clip(grown + 0.1 * rng.standard_normal(grown.shape), 0, 1)
