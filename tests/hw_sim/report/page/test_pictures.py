"""Pictures of a page: what a map's PNG says of the spikes, and which pixels are rain."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esdnet.images.files import load_image
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.checkpoint import load_checkpoint
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.backends.spike_maps import SpikeMaps
from hw_sim.report.page.pictures import MOST_SIDE, Pictures, picture_uri, rain_of, spike_pictures

SAMPLE = Path(__file__).parents[4] / "esdnet" / "sample"


def decoded(uri: str) -> np.ndarray:
    kind, content = uri.split(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.array(Image.open(io.BytesIO(base64.b64decode(content))))


def pictures(fired, image=None, output=None, size=(8, 12), **options) -> Pictures:
    image = np.full((*size, 3), 0.5) if image is None else image
    maps = SpikeMaps((8, 12), **options)
    maps.add(fired, (slice(0, 8), slice(0, 12)))
    return Pictures(image, image if output is None else output, maps)


def test_a_picture_is_itself_to_the_last_bit_if_it_is_small():
    levels = np.random.default_rng(0).integers(0, 256, (5, 9, 3))
    assert np.array_equal(decoded(picture_uri(levels / 255)), levels)
    assert decoded(picture_uri(np.full((2, 2, 3), [-0.2, 0.5, 1.3]))).tolist() == [[[0, 128, 255]] * 2] * 2


@pytest.mark.slow
def test_a_large_picture_is_made_smaller_and_a_noisy_one_a_jpeg():
    noise = np.random.default_rng(0).random((1500, 900, 3))
    uri = picture_uri(noise)
    assert uri.startswith("data:image/jpeg")
    assert decoded(uri).shape == (MOST_SIDE, round(MOST_SIDE * 900 / 1500), 3)
    assert decoded(picture_uri(np.zeros((3000, 4000, 3)))).shape == (768, 1024, 3)


def test_a_map_holds_the_counts_and_what_full_is():
    fired = np.random.default_rng(1).integers(0, 6, (2, 8, 12))
    found = spike_pictures(pictures({"a": fired}), {"a": 5}, 384)
    layer = found["layers"]["a"]
    assert (layer["cells"], layer["full"]) == ([12, 8], 5)
    assert np.array_equal([decoded(step) for step in layer["steps"]], fired)
    assert not found["coarser"]


def test_more_channels_than_a_byte_holds_are_rates_of_255():
    fired = np.array([[[1000, 500], [0, 4]]])
    layer = spike_pictures(pictures({"a": fired}), {"a": 1000}, 384)["layers"]["a"]
    assert layer["full"] == 255
    assert decoded(layer["steps"][0]).tolist() == [[255, 128], [0, 1]]


def test_a_coarser_map_is_the_mean_of_its_squares():
    fired = np.zeros((1, 8, 12), int)
    fired[0, :2, :2] = [[4, 0], [2, 2]]
    found = spike_pictures(pictures({"a": fired}), {"a": 4}, 6)
    layer = found["layers"]["a"]
    assert found["coarser"]
    assert (layer["cells"], layer["full"]) == ([6, 4], 4)  # whole numbers again: counts
    assert decoded(layer["steps"][0])[0].tolist() == [2, 0, 0, 0, 0, 0]
    fired[0, 0, 0] = 3
    layer = spike_pictures(pictures({"a": fired}), {"a": 4}, 6)["layers"]["a"]
    assert layer["full"] == 255
    assert decoded(layer["steps"][0])[0, 0] == round(7 / 16 * 255)


def test_rain_is_where_the_output_differs_in_some_colour():
    image = np.full((8, 12, 3), 100 / 255)
    output = image.copy()
    output[0, 0, 1] -= 9 / 255
    output[0, 1] -= 8 / 255
    output[1, 0, 2] += 9 / 255
    rain = rain_of(pictures({}, image, output))
    assert rain.sum() == 2
    assert rain[0, 0]
    assert rain[1, 0]


def test_rates_in_rain_and_elsewhere_by_hand():
    image, fired = np.full((8, 12, 3), 0.5), np.zeros((2, 8, 12), int)
    output = image.copy()
    output[:, :3] = 0.3  # a quarter of the image
    fired[0, :, :3], fired[0, :, 3:], fired[1, :, :3] = 4, 1, 2
    found = spike_pictures(
        pictures({"a": fired, "coarse": fired[:, ::4, ::4]}, image, output), {"a": 4, "coarse": 4}, 384
    )
    assert found["rain_share"] == 0.25
    assert found["layers"]["a"]["in_rain"] == [1.0, 0.5]
    assert found["layers"]["a"]["elsewhere"] == [0.25, 0.0]
    # coarse: 2 x 3 cells of 4 x 4 pixels, rain is 3/4 of the first column; fired 4 there and 1 in the others
    assert found["layers"]["coarse"]["in_rain"] == [1.0, 0.5]
    assert found["layers"]["coarse"]["elsewhere"] == pytest.approx([(0.25 * 1 + 2 * 0.25) / 2.25, 0.25 * 0.5 / 2.25])


def test_without_rain_there_is_no_rate_in_it_and_padding_is_not_shown():
    fired = np.ones((1, 8, 12), int)
    found = spike_pictures(pictures({"a": fired}, size=(6, 9)), {"a": 1}, 384)
    assert found["layers"]["a"]["in_rain"] is None
    assert found["layers"]["a"]["elsewhere"] == [1.0]
    assert found["covers"] == [6 / 8, 9 / 12]
    assert spike_pictures(Pictures(np.zeros((2, 2, 3)), np.zeros((2, 2, 3))), {}, 384) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_released", "small_spike_driven"])
def test_on_the_bundled_photo_rain_is_mostly_where_rain_was_drawn(name):
    """What docs/commands.md says of the rule."""
    image, clean = load_image(SAMPLE / "rainy.png"), load_image(SAMPLE / "clean.png")
    network = lower(load_checkpoint(find_checkpoint(name)), name)
    output = simulator.run(network, image.transpose(2, 0, 1), keep_spikes=False, count=False).output
    found, drawn = rain_of(Pictures(image, output.transpose(1, 2, 0))), rain_of(Pictures(image, clean))
    assert (found & drawn).sum() / found.sum() > 0.94
    assert (found & drawn).sum() / drawn.sum() > 0.90
