"""Rain drawn afresh: layers of light (H, W) float32, added to a clean photo and clipped as the benchmarks are.

Streaks are drawn upright, each as a profile along times a profile across, and the layer is then turned to its angle.
Light rain follows Rain200L, heavy rain Rain200H (several layers and directions); docs/data.md shows how
well they match.
External streak patterns (Garg & Nayar 2006) may be mixed in; nothing external is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

Array = np.ndarray


@dataclass(frozen=True)
class Streaks:
    """One layer of drawn streaks. Lengths in pixels, angle in degrees from upright, brightness in [0, 1].

    `coverage` is the summed streak area over the layer's area. `spread` is how much a streak's brightness varies: 0
    makes all equal, 1 makes most faint and a few bright. `hard` streaks are even bars, the brighter one wins where two
    cross; others fade at their ends and sides, as blurred drops do, and add up. A `jagged` layer is turned without
    interpolation: much of Rain200H is so.
    """

    angle: float
    coverage: float
    length: float
    width: float
    brightness: float
    spread: float
    hard: bool
    jagged: bool = False


def draw_streaks(rng: np.random.Generator, height: int, width: int, streaks: Streaks) -> np.ndarray:
    """Draw one layer of rain: float32 (height, width), at least 0, not clipped above."""
    cosine, sine = abs(np.cos(np.deg2rad(streaks.angle))), abs(np.sin(np.deg2rad(streaks.angle)))
    rows = int(height * cosine + width * sine) + 4  # what the turned layer sees of the upright one
    columns = int(width * cosine + height * sine) + 4
    margin = int(2 * streaks.length) + 2
    canvas = np.zeros((rows + 2 * margin, columns + 8), dtype=np.float32)
    count = rng.poisson(streaks.coverage * (rows + margin) * columns / (streaks.length * streaks.width))
    lengths = np.clip(streaks.length * rng.lognormal(0.0, 0.35, count), 3, margin - 1).astype(int)
    widths = streaks.width * rng.uniform(0.7, 1.3, count)
    peaks = streaks.brightness * _brightness(rng, count, streaks.spread)
    tops = rng.integers(margin // 2, rows + margin + margin // 2, count) - lengths // 2
    lefts = rng.uniform(2, columns + 4, count)
    draw = _draw_bars if streaks.hard else _draw_drops
    draw(canvas, tops, lefts, lengths, widths, peaks.astype(np.float32))
    upright = canvas[margin : margin + rows, 4 : columns + 4]
    return turn(upright, streaks.angle, height, width, smooth=not streaks.jagged)


def turn(layer: np.ndarray, angle: float, height: int, width: int, smooth: bool = True) -> np.ndarray:
    """Turn a layer by `angle` degrees about its centre and keep the central (height, width); outside is dry."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    centre = (np.array(layer.shape) - 1) / 2 - matrix @ ((np.array([height, width]) - 1) / 2)
    return affine_transform(layer, matrix, centre, (height, width), order=1 if smooth else 0, mode="constant")


def cut_pattern(
    rng: np.random.Generator, pattern: np.ndarray, height: int, width: int, angle: float, zoom: float
) -> np.ndarray:
    """Cut a (height, width) layer from a streak pattern (h, w), mirrored so that any size fits, zoomed and turned."""
    side = int(np.ceil(np.hypot(height, width) / zoom)) + 2
    rows = _mirrored(rng, pattern.shape[0], side)
    columns = _mirrored(rng, pattern.shape[1], side)
    square = pattern[np.ix_(rows, columns)].astype(np.float32)
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[cosine, -sine], [sine, cosine]]) / zoom
    offset = (np.array(square.shape) - 1) / 2 - matrix @ ((np.array([height, width]) - 1) / 2)
    return affine_transform(square, matrix, offset, (height, width), order=1, mode="mirror")


def light_rain(rng: np.random.Generator, height: int, width: int, patterns: Sequence[np.ndarray] = ()) -> np.ndarray:
    """One direction of thin, soft streaks, as Rain200L; from a pattern half of the time, if there are any."""
    angle = rng.normal(0.0, 9.0)
    if len(patterns) > 0 and rng.random() < 0.5:
        pattern = patterns[int(rng.integers(len(patterns)))]
        layer = cut_pattern(rng, pattern, height, width, angle, rng.uniform(0.8, 1.4))
        return layer * np.float32(_log_uniform(rng, 0.45, 1.1))
    streaks = Streaks(
        angle=angle,
        coverage=_log_uniform(rng, 0.18, 0.5),
        length=_log_uniform(rng, 22, 70),
        width=rng.uniform(1.0, 2.2),
        brightness=_log_uniform(rng, 0.075, 0.2),
        spread=0.8,
        hard=False,
    )
    return draw_streaks(rng, height, width, streaks)


def heavy_rain(
    rng: np.random.Generator, height: int, width: int, severity: float, patterns: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Several layers in close directions, sharp and soft, as Rain200H; `severity` in [0, 1] goes from mid to heavy."""
    angle = rng.normal(0.0, 6.0)
    total = np.zeros((height, width), dtype=np.float32)
    layers = 1 + rng.integers(0, 3 + round(2 * severity))
    strength = (0.05 + 0.48 * severity) * rng.uniform(0.7, 1.3)  # summed coverage x brightness of all layers
    for index, share in enumerate(rng.dirichlet(np.full(layers, 2.0))):
        coverage = _log_uniform(rng, 0.3, 1.2)
        crossing = rng.uniform(-50.0, 50.0) if index > 0 and rng.random() < 0.2 else 0.0
        streaks = Streaks(
            angle=angle + rng.normal(0.0, 6.0) + crossing,
            coverage=coverage,
            length=_log_uniform(rng, 32, 130),
            width=_log_uniform(rng, 1.2, 2.8),
            brightness=min(share * strength / coverage, 0.4),
            spread=float(rng.choice([0.0, 0.3, 0.5])),
            hard=bool(rng.random() < 0.6),
            jagged=bool(rng.random() < 0.4),
        )
        total += draw_streaks(rng, height, width, streaks)
    if rng.random() < 0.5:
        total += light_rain(rng, height, width, patterns)
    return total


def add_rain(clean: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Rain only adds light: float32 photo (H, W, 3) plus layer (H, W), clipped and rounded to 8 bits."""
    rainy = np.clip(clean + layer[..., None], 0.0, 1.0)
    return (np.floor(rainy * np.float32(255) + np.float32(0.5)) / np.float32(255)).astype(np.float32)


def _brightness(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """Relative peaks of mean 1: between all equal (0) and exponential (1)."""
    return (1.0 - spread) + spread * rng.exponential(1.0, count)


def _draw_bars(canvas: Array, tops: Array, lefts: Array, lengths: Array, widths: Array, peaks: Array) -> None:
    """Even bars, whole pixels wide; the brightest one is seen."""
    columns, wholes = lefts.astype(int), np.maximum(np.rint(widths), 1).astype(int)
    for top, left, length, width, peak in zip(tops, columns, lengths, wholes, peaks, strict=True):
        part = canvas[top : top + length, left : left + width]
        np.maximum(part, peak, out=part)


def _draw_drops(canvas: Array, tops: Array, lefts: Array, lengths: Array, widths: Array, peaks: Array) -> None:
    """Half a sine along, a Gaussian of the same area as a box of that width across; overlapping drops add up."""
    columns = lefts.astype(int) - 2
    distance = columns[:, None] + np.arange(6) - lefts[:, None]
    across = (peaks[:, None] * np.exp(-(distance**2) / (2 * (widths[:, None] / 2.5) ** 2))).astype(np.float32)
    along = {n: np.sin(np.pi * (np.arange(n) + 0.5) / n).astype(np.float32)[:, None] for n in np.unique(lengths)}
    for top, left, length, profile in zip(tops, columns, lengths, across, strict=True):
        canvas[top : top + length, left : left + 6] += along[length] * profile


def _mirrored(rng: np.random.Generator, size: int, wanted: int) -> np.ndarray:
    """`wanted` consecutive indices into a range of `size` that is continued by its mirror image."""
    start = rng.integers(0, size - wanted + 1) if wanted <= size else rng.integers(0, 2 * size)
    index = (start + np.arange(wanted)) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
