"""The real Lava: every model gives the simulator's spikes, counts and output, image after image."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.graph.nodes import Affine, NetworkError
from hw_sim.backends import lava, simulator
from hw_sim.backends.lava import LavaSession
from hw_sim.backends.lava.memory import channel_sizes
from hw_sim.backends.result import Result, compare
from tests.hw_sim.backends.lava.networks import STEPS, every_kind, image, relay
from tests.tolerances import FLOAT64_OUTPUT

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")
SIZE = (8, 12)
LAVA_STOCK_OUTPUT = 1e-12  # Lava's Conv sums in another order


def check(expected: Result, found: Result, tolerance: float = 0.0) -> None:
    comparison = compare(expected, found)
    assert comparison.equal_spikes, comparison
    assert comparison.max_difference <= tolerance
    assert set(found.counts) == set(expected.counts)
    assert found.executed_size == expected.executed_size


@pytest.mark.slow
@needs_lava
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "choice",
    [
        {"model": "fused"},
        *(pytest.param(choice, marks=pytest.mark.slow) for choice in ({"model": "fine"}, {"stock": True})),
    ],
    ids=["fused", "fine", "stock"],
)
def test_images_back_to_back_give_what_each_gives_alone(choice):
    network = every_kind()
    images = [image(seed, *SIZE) for seed in range(3)]
    expected = [simulator.run(network, pixels, precision="float64") for pixels in images]
    with LavaSession(network, SIZE, precision="float64", **choice) as session:
        assert session.facts["processes"] == sum(1 for _ in session.plan.leaves) + 2  # injector and extractor
        assert session.facts["shared_bytes"] == sum(channel_sizes(session.plan))
        for one, result in zip(expected, session.stream(images), strict=True):  # dyadic numbers: no tolerance
            check(one, result)
        steps = session.facts["steps"]
        assert steps % STEPS == 0
        assert steps > 2 * STEPS + session.plan.latency
        check(expected[1], session.run(images[1]))
        assert session.facts["images"] == 4

        with pytest.raises(NetworkError, match=r"image of shape \(3, 8, 8\), this session takes \(3, 8, 12\)"):
            list(session.stream([images[0], image(0)]))
        stream = session.stream(images)
        check(expected[0], next(stream))
        stream.close()  # images on their way are flushed
        check(expected[2], session.run(images[2]))


@needs_lava
@pytest.mark.timeout(300)
def test_golden_network_on_its_photo(golden, golden_network):
    """The authors' spikes and output, real weights and a real photo, float64."""
    result = lava.run(golden_network, golden.input[0], precision="float64")
    assert np.abs(result.output - golden.output[0]).max() <= FLOAT64_OUTPUT
    assert set(result.spikes) == set(golden.spikes)
    for name, spikes in golden.spikes.items():
        assert result.spikes[name].sum() == spikes, name
    check(simulator.run(golden_network, golden.input[0], precision="float64"), result, FLOAT64_OUTPUT)


@pytest.mark.slow
@needs_lava
@pytest.mark.timeout(300)
def test_spike_driven_network(spike_driven_network, photo):
    check(simulator.run(spike_driven_network, photo, precision="float64"),
          lava.run(spike_driven_network, photo, precision="float64"), FLOAT64_OUTPUT)  # fmt: skip


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "choice", [{"model": "fine"}, pytest.param({"stock": True}, marks=pytest.mark.slow)], ids=["fine", "stock"]
)
def test_either_network_in_every_model(either_network, photo, choice):
    expected = simulator.run(either_network, photo, precision="float64")
    found = lava.run(either_network, photo, precision="float64", **choice)
    check(expected, found, LAVA_STOCK_OUTPUT)


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_float32_is_the_simulators(either_network, photo):
    expected = simulator.run(either_network, photo, precision="float32")
    found = lava.run(either_network, photo, precision="float32")
    assert found.output.dtype == np.float32
    comparison = compare(expected, found)
    assert comparison.psnr_db >= 60  # convolutions of one frame or four may round differently: no spike is promised


def test_without_lava_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lava", None)  # as Python sees a package that is not installed
    with pytest.raises(UserError, match=r"^Lava: .*lava-nc.*simulator$"):
        LavaSession(every_kind(), SIZE)


@needs_lava
def test_stock_processes_compute_in_float64_only():
    with pytest.raises(UserError, match="its own Conv and LIF compute in float64, not float32"):
        LavaSession(every_kind(), SIZE, precision="float32", stock=True)


@needs_lava
def test_too_large_an_image_is_refused_before_the_start():
    network = relay(Affine(name="half", inputs=("image",), scale=np.array(0.5)))
    with pytest.raises(UserError, match="MiB of shared memory"):
        LavaSession(network, (65536, 65536))
