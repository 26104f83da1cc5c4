"""An Output of several frames, and a matrix that reads spikes: every executor gives the same, and takes floats only."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from export.graph import nodes as g
from export.graph.frames import check_image, output_of
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.integer.calibrate import quantize_on_images
from export.integer.run import run_integer, to_pixels
from export.targets.nir.read import open_export, read_network
from export.targets.nir.run import run_export
from export.targets.nir.write import write_folder
from export.targets.onnx.run import run_image
from export.targets.onnx.write import to_model
from hw_sim.agreement import integer_oracle
from hw_sim.backends import integer_simulator, simulator
from hw_sim.backends.result import compare

STEPS = 4
SIZE = (6, 8)
needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")


def dyadic(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-8, 9, shape) / 8


def neuron(name: str, x: str) -> g.Neuron:
    return g.Neuron(name=name, inputs=(x,), threshold=np.array(0.35), membrane_decay=0.5)


def stream(end: str = "restored") -> Network:
    """Two matrices on spikes, one over the channels, one over time; `end`: the node whose frames come out."""
    rng = np.random.default_rng(4)
    nodes: list[g.Node] = [
        g.Input(name="image"),
        g.Repeat(name="coding", inputs=("image",)),
        g.Conv(name="embed", inputs=("coding",), weight=dyadic(rng, 5, 3, 3, 3), padding=(1, 1)),
        neuron("first", "embed"),
        g.Linear(name="mix", inputs=("first",), weight=dyadic(rng, 3, 5), bias=dyadic(rng, 3)),
        neuron("second", "mix"),
        g.Linear(name="blend", inputs=("second",), weight=dyadic(rng, STEPS, STEPS), axis="T"),
        g.Add(name="restored", inputs=("blend", "coding")),
    ]
    kept = nodes[: [node.name for node in nodes].index(end) + 1]
    return Network(
        name="stream", nodes=(*kept, g.Output(name="out", inputs=(end,))), steps=STEPS
    )  # fmt: skip


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 17, (3, *SIZE)) / 16


@pytest.mark.parametrize("end", ["restored", "second"])
def test_all_frames_come_out_of_every_executor(end, image, tmp_path):
    """Dyadic numbers: equal, in any order and precision. `second`: what comes out are spikes, 0 and 1."""
    network = stream(end)
    expected = simulator.run(network, image, precision="float64")
    assert expected.output.shape == (STEPS, 3, *SIZE)
    assert expected.output.dtype == np.float64
    assert len(np.unique(expected.output, axis=0)) > 1  # not one frame repeated
    if end == "second":
        assert np.array_equal(expected.output, expected.spikes["second"])
    assert np.array_equal(simulator.run(network, image, precision="float32").output, expected.output)
    for precision in ("float32", "float64"):
        model = to_model(network, precision)
        assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == STEPS
        assert np.array_equal(run_image(model, network, image)[0], expected.output)
    write_folder(network, *SIZE, tmp_path / "nir")
    found = run_export(open_export(tmp_path / "nir"), read_network(tmp_path / "nir"), image, lambda name, spikes: None)
    assert np.array_equal(found, expected.output)


@needs_lava
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "choice",
    [{"model": "fused"}, *(pytest.param(one, marks=pytest.mark.slow) for one in ({"model": "fine"}, {"stock": True}))],
    ids=["fused", "fine", "stock"],
)
def test_all_frames_come_out_of_lava(choice, image):
    from hw_sim.backends.lava import LavaSession

    network = stream()
    with LavaSession(network, SIZE, precision="float64", **choice) as session:
        for pixels in (image, image[:, ::-1], image):
            difference = compare(simulator.run(network, pixels, precision="float64"), session.run(pixels))
            assert difference.equal_spikes, difference
            assert difference.max_difference == 0.0
        with pytest.raises(NetworkError, match="stream: image of uint8, expected floats"):
            session.run(to_pixels(image))


def test_all_frames_come_out_of_the_integers(image):
    network, pixels = stream(), to_pixels(image)
    integer = quantize_on_images(network, [pixels])
    frames = run_integer(integer, pixels)
    assert frames.shape == (STEPS, 3, *SIZE)
    assert np.array_equal(frames, integer_oracle.run(integer, pixels).values["out"])
    result = integer_simulator.run(integer, image)
    assert np.array_equal(result.output, frames / 255.0)
    for name, fan_out in (("mix", 3), ("blend", STEPS)):
        spikes = result.spikes[integer.network[name].inputs[0]]
        assert (result.counts[name].totals()["acs"], result.counts[name].totals()["macs"]) == (
            fan_out * spikes.sum(),
            0,
        )


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("choice", [{}, {"stock": True}], ids=["fused", "stock"])
def test_all_frames_come_out_of_lava_in_integers(choice, image):
    from hw_sim.backends.lava.integer_session import IntegerLavaSession

    integer = quantize_on_images(stream(), [to_pixels(image)])
    with IntegerLavaSession(integer, SIZE, **choice) as session:
        difference = compare(integer_simulator.run(integer, image), session.run(image))
        assert difference.equal_spikes, difference
        assert difference.max_difference == 0.0
        with pytest.raises(NetworkError, match="stream: image of uint8, expected floats"):
            session.run(to_pixels(image))


def test_more_frames_than_steps_are_refused_by_lava():
    from hw_sim.backends.lava.plan import make_plan

    nodes = (
        g.Input(name="image"),
        g.Repeat(name="coding", inputs=("image",)),
        g.Linear(name="longer", inputs=("coding",), weight=np.ones((3, 2)), axis="T"),
        g.Output(name="out", inputs=("longer",)),
    )
    with pytest.raises(NetworkError, match="longer: 3 frames an image, Lava sends one in each of its 2 steps; use --b"):
        make_plan(Network(name="n", nodes=nodes, steps=2), SIZE)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((3, *SIZE), 200, np.uint8), r"image of uint8, expected floats in \[0, 1\]; divide pixels by 255"),
        (np.ones((3, *SIZE), np.int64), "image of int64, expected floats"),
        (np.ones((3, *SIZE), bool), "image of bool, expected floats"),
        (np.full((3, *SIZE), 200.0), r"image with values from 0\.5 to 200, expected \[0, 1\]; scale it"),
        (np.full((3, *SIZE), -1e-9), r"image with values from -1e-09 to 0\.5, expected \[0, 1\]"),
        (np.full((3, *SIZE), np.nan), "image with values from nan to nan"),
        (np.ones((1, *SIZE)), "image has 1 channels, expected 3"),
        (np.ones(SIZE), r"image of shape \(6, 8\), expected \(channels, height, width\)"),
    ],
)
def test_what_is_no_image_is_refused_by_every_executor(image, message, tiny_model, tiny_network, tmp_path):
    from hw_sim.backends import torch_model

    network = stream()
    integer = quantize_on_images(network, [to_pixels(np.full((3, *SIZE), 0.5))])
    write_folder(network, *SIZE, tmp_path / "nir")
    model = to_model(network)
    for run in (
        lambda: check_image(network, image),
        lambda: simulator.run(network, image),
        lambda: integer_simulator.run(integer, image),
        lambda: run_image(model, network, image),
        lambda: torch_model.run(tiny_model, tiny_network, image),
    ):
        with pytest.raises(NetworkError, match=message):
            run()
    if image.shape == (3, *SIZE):
        with pytest.raises(NetworkError, match=message):
            run_export(open_export(tmp_path / "nir"), read_network(tmp_path / "nir"), image, print)


def test_the_range_may_be_used_up():
    network = stream()
    assert check_image(network, np.stack([np.zeros(SIZE), np.ones(SIZE), np.full(SIZE, 0.5)])) == SIZE
    assert check_image(network, np.ones((3, *SIZE), np.float32)) == SIZE


def test_one_frame_loses_its_axis():
    assert output_of(np.zeros((1, 3, 4, 5))).shape == (3, 4, 5)
    assert output_of(np.zeros((2, 3, 4, 5))).shape == (2, 3, 4, 5)


def test_several_frames_are_no_image_to_save(tmp_path, capsys):
    from hw_sim import energy

    write_folder(stream(), *SIZE, tmp_path / "nir")
    image = Path(__file__).parents[1] / "golden" / "esdnet_release_dim16.png"
    assert energy.main(["--image", str(image), "--network", str(tmp_path / "nir")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"nir: makes \(4, 3, 8, 8\) .* of an image \(1, 3, 8, 8\), expected an image .*; run it", line)
