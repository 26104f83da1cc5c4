"""Drawn rain: what a layer's parameters promise, and that light and heavy rain are as strong as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from esdnet.images.metrics import psnr_y
from esdnet.training.rain import Streaks, add_rain, cut_pattern, draw_streaks, heavy_rain, light_rain, turn

BARS = Streaks(angle=0.0, coverage=0.5, length=30, width=2, brightness=0.25, spread=0.0, hard=True)
DROPS = replace(BARS, hard=False)


def tilt_of(layer: np.ndarray) -> float:
    """Main direction of the streaks in degrees from upright, positive as `turn` turns (structure tensor)."""
    across, down = np.gradient(gaussian_filter(layer, 1.0))[::-1]
    return float(np.rad2deg(0.5 * np.arctan2(2 * (across * down).mean(), (across**2 - down**2).mean())))


def test_equal_bars_have_one_brightness() -> None:
    layer = draw_streaks(np.random.default_rng(0), 100, 80, BARS)
    assert layer.shape == (100, 80)
    assert layer.dtype == np.float32
    assert np.unique(layer).tolist() == [0.0, 0.25]


def test_coverage_is_that_of_randomly_placed_bars() -> None:
    # Bars dropped at random leave exp(-coverage) of the area dry.
    layer = draw_streaks(np.random.default_rng(0), 400, 400, BARS)
    assert (layer == 0).mean() == pytest.approx(np.exp(-0.5), abs=0.03)


def test_drops_bring_the_light_that_their_parameters_say() -> None:
    # Half a sine averages 2/pi of its peak; the Gaussian's area is sqrt(2 pi) / 2.5 of a box's.
    layer = draw_streaks(np.random.default_rng(0), 400, 400, DROPS)
    assert layer.mean() == pytest.approx(0.5 * 0.25 * (2 / np.pi) * np.sqrt(2 * np.pi) / 2.5, rel=0.05)


@pytest.mark.parametrize("streaks", [BARS, DROPS, replace(BARS, jagged=True)], ids=["bars", "drops", "jagged"])
@pytest.mark.parametrize("angle", [-35.0, 0.0, 20.0])
def test_streaks_lie_at_their_angle(streaks: Streaks, angle: float) -> None:
    layer = draw_streaks(np.random.default_rng(0), 200, 200, replace(streaks, angle=angle))
    assert tilt_of(layer) == pytest.approx(angle, abs=4.0)


def test_rain_reaches_every_border() -> None:
    many = [draw_streaks(np.random.default_rng(s), 64, 64, replace(BARS, angle=15.0 * (s % 5 - 2))) for s in range(200)]
    wet = np.mean([layer > 0.01 for layer in many], axis=0)
    edges = [wet[0].mean(), wet[-1].mean(), wet[:, 0].mean(), wet[:, -1].mean()]
    assert np.allclose(edges, wet.mean(), atol=0.05)


def test_turning() -> None:
    layer = np.random.default_rng(0).random((9, 9)).astype(np.float32)
    assert np.array_equal(turn(layer, 0.0, 9, 9), layer)
    quarter = turn(layer, 90.0, 9, 9, smooth=False)
    assert any(np.array_equal(quarter, np.rot90(layer, k)) for k in (1, 3))


def test_patterns_are_continued_by_mirroring() -> None:
    pattern = np.random.default_rng(0).random((12, 10)).astype(np.float32)
    layer = cut_pattern(np.random.default_rng(1), pattern, 40, 50, angle=10.0, zoom=1.2)
    assert layer.shape == (40, 50)
    assert layer.min() > 0  # the pattern has no dark place, so no border may show


def test_same_generator_same_rain() -> None:
    one, two = (heavy_rain(np.random.default_rng(5), 64, 48, 0.5) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, heavy_rain(np.random.default_rng(6), 64, 48, 0.5))


def test_adding_rain_only_adds_light_in_whole_grey_levels() -> None:
    clean = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.float32) / np.float32(255)
    layer = heavy_rain(np.random.default_rng(1), 32, 32, 1.0)
    rainy = add_rain(clean, layer)
    assert rainy.dtype == np.float32
    assert (rainy >= clean).all()
    assert rainy.max() <= 1.0
    assert np.abs(rainy * 255 - np.rint(rainy * 255)).max() < 1e-4
    assert np.array_equal(add_rain(clean, np.zeros((32, 32), np.float32)), clean)


def mean_psnr(layers: list[np.ndarray]) -> float:
    grey = np.full((*layers[0].shape, 3), 0.4, np.float32)
    return float(np.mean([psnr_y(add_rain(grey, layer), grey) for layer in layers]))


def test_light_and_heavy_rain_are_as_strong_as_the_benchmarks() -> None:
    """Rain200L and Rain200H inputs have 27 and 14 dB on average; a grey photo clips less than real ones."""
    light = [light_rain(np.random.default_rng([0, i]), 160, 160) for i in range(30)]
    heavy = [heavy_rain(np.random.default_rng([1, i]), 160, 160, i / 29) for i in range(30)]
    assert 24.0 < mean_psnr(light) < 29.0
    assert 12.0 < mean_psnr(heavy) < 16.5
    assert mean_psnr(heavy[:10]) > mean_psnr(heavy[20:]) + 3.0


def test_patterns_are_used_where_there_are_any() -> None:
    bright = [np.full((50, 50), 0.9, np.float32)]
    flat = [np.ptp(light_rain(np.random.default_rng(i), 32, 32, bright)) < 1e-5 for i in range(40)]
    assert 8 < sum(flat) < 32
