"""Networks that many tests share: the authors' golden one, and tiny ones, released and spike-driven, whose batch
statistics have seen images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from esdnet.networks.architectures import Config, build, preset
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.model import ESDNet
from export.readers.esdnet import lower
from tests.browser import opened_browser

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
    """A tiny ESDNet as released, float32, eval mode; on the photo its deeper layers are silent."""
    torch.manual_seed(1)
    return run_in(ESDNet(preset("tiny")))


@pytest.fixture(scope="session")
def tiny_network(tiny_model):
    """The tiny network, lowered."""
    return lower(tiny_model, "tiny")


@pytest.fixture(scope="session")
def spike_driven_model() -> ESDNet:
    """A tiny spike-driven ESDNet, float32, eval mode, that fires in every layer: as if it had learnt, each neuron
    layer has a threshold of its own, each gain and weight over time is another."""
    torch.manual_seed(1)
    model = ESDNet(preset("tiny_spike_driven"))
    learnt = {"threshold": (0.02, 0.1), "gain": (0.5, 1.5), "time_weights.weight": (0.1, 0.4)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for ending, limits in learnt.items():
                if name.endswith(ending):
                    parameter.uniform_(*limits)
    return run_in(model)


@pytest.fixture(scope="session")
def spike_driven_network(spike_driven_model):
    """The tiny spike-driven network, lowered."""
    return lower(spike_driven_model, "tiny")


@pytest.fixture(scope="session", params=["released", "spike_driven"])
def either_model(request) -> ESDNet:
    """Both of them: what a test promises of one, it promises of the other."""
    return request.getfixturevalue({"released": "tiny_model", "spike_driven": "spike_driven_model"}[request.param])


@pytest.fixture(scope="session")
def either_network(either_model):
    """The network of `either_model`, lowered."""
    return lower(either_model, "tiny")


def as_if_learnt(config: Config) -> nn.Module:
    """A network without spikes, float32, eval mode: no weight is zero, clusters have seen features."""
    torch.manual_seed(0)
    model = build(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for _ in range(5):
            model(torch.rand(2, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="session")
def dual_stage_model() -> nn.Module:
    """A tiny dual-stage network."""
    return as_if_learnt(preset("tiny_dual_stage"))


# For a test of `either_model` that takes long: `make test` runs it on the released network, `make test-all` on both.
slow_if_spike_driven = pytest.mark.parametrize(
    "either_model", ["released", pytest.param("spike_driven", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth random image (3, 32, 24) in [0, 1], float64."""
    rng = np.random.default_rng(5)
    coarse = rng.random((3, 9, 7))
    grown = np.kron(coarse, np.ones((1, 4, 4)))[:, :32, :24]
    return np.clip(grown + 0.1 * rng.standard_normal(grown.shape), 0, 1)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium with a new profile; the test is skipped where there is none."""
    with opened_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver
