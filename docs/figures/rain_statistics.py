"""Compares drawn rain with the rain of a benchmark: prints a table and draws docs/figures/rain_*.png.

In: folders of real pairs (input/, target/), heavy and light, and optionally streak patterns. Out: data plots and drawn
rain over a public-domain photo (astronaut, NASA, from scikit-image); no picture of the folders is shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter, rotate
from skimage.data import astronaut

from esdnet.command.errors import report_user_errors
from esdnet.images.files import list_images, load_image
from esdnet.images.metrics import psnr_y, ssim_y
from esdnet.training.data import PairedFolder
from esdnet.training.rain import add_rain, heavy_rain, light_rain

HERE = Path(__file__).parent
REPEATS = {"heavy": 6, "light": 60}  # drawings per real photo: about 120 of each kind
CLIPPED_LIMIT = 0.2  # layers with more clipped pixels are left out of the layer statistics, not of the scores

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Rain:
    """What is known of one rainy image."""

    psnr: float
    ssim: float
    layer: np.ndarray | None  # (H, W), NaN where clipped; None where too much is
    tilt: float = 0.0
    spread: float = 0.0
    along: float = 0.0
    across: float = 0.0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heavy", type=Path, required=True, help="real pairs of heavy rain")
    parser.add_argument("--light", type=Path, required=True, help="real pairs of light rain")
    parser.add_argument("--streaks", type=Path, help="streak patterns to mix in")
    arguments = parser.parse_args(argv)
    return report_user_errors(lambda: compare(arguments.heavy, arguments.light, arguments.streaks))


def compare(heavy: Path, light: Path, streaks: Path | None) -> int:
    """Measure real and drawn rain, print the table and draw the figures."""
    patterns = [load_image(path)[..., 0].astype(np.float32) for path in list_images(streaks)] if streaks else []
    groups = {}
    for kind, folder in (("heavy", heavy), ("light", light)):
        pairs = [pair.load() for pair in PairedFolder(folder).pairs()]
        groups[f"{kind}, real"] = [measure(rainy, clean) for rainy, clean in pairs]
        groups[f"{kind}, drawn"] = redraw(pairs, kind, [])
        if patterns:
            groups[f"{kind}, with patterns"] = redraw(pairs, kind, patterns)
    print_table(groups)
    plot_statistics(groups)
    plot_examples()
    return 0


def redraw(pairs: list, kind: str, patterns: list[np.ndarray]) -> list[Rain]:
    """Drawn rain over the real pairs' clean photos, as training draws it."""
    found = []
    for index, (_, clean) in enumerate(pairs):
        for repeat in range(REPEATS[kind]):
            rng = np.random.default_rng([index, repeat])
            height, width = clean.shape[:2]
            if kind == "heavy":
                layer = heavy_rain(rng, height, width, rng.random(), patterns)
            else:
                layer = light_rain(rng, height, width, patterns)
            found.append(measure(add_rain(clean.astype(np.float32), layer), clean))
    return found


def measure(rainy: np.ndarray, clean: np.ndarray) -> Rain:
    """Scores of the rainy image; strength, direction and size of its streaks where little is clipped."""
    psnr, ssim = psnr_y(rainy, clean), ssim_y(rainy, clean)
    unclipped = rainy < 1.0 - 1e-6
    layer = np.where(unclipped.any(axis=2), np.where(unclipped, rainy - clean, 0.0).max(axis=2), np.nan)
    if np.isnan(layer).mean() > CLIPPED_LIMIT:
        return Rain(psnr, ssim, None)
    filled = np.nan_to_num(layer)
    tilt, spread = direction(filled)
    along, across = streak_size(filled, tilt)
    return Rain(psnr, ssim, layer, tilt, spread, along, across)


def direction(layer: np.ndarray) -> tuple[float, float]:
    """Mean tilt from upright and circular deviation in degrees, gradients weighted by their energy."""
    across, down = np.gradient(gaussian_filter(layer, 1.0))[::-1]
    energy, doubled = across**2 + down**2, np.exp(2j * np.arctan2(down, across))
    mean = (energy * doubled).sum() / energy.sum()
    return float(np.rad2deg(np.angle(mean)) / 2), float(np.rad2deg(np.sqrt(-2 * np.log(abs(mean)))) / 2)


def streak_size(layer: np.ndarray, tilt: float) -> tuple[float, float]:
    """Pixels after which the autocorrelation has halved, along and across the streaks."""
    upright = rotate(layer, tilt, reshape=False, order=1)
    side = min(layer.shape) * 2 // 3 // 2
    middle = [length // 2 for length in layer.shape]
    part = upright[middle[0] - side : middle[0] + side, middle[1] - side : middle[1] + side]
    power = np.abs(np.fft.rfft2(part - part.mean())) ** 2
    correlation = np.fft.irfft2(power, part.shape)
    correlation /= correlation[0, 0]
    return half_width(correlation[:side, 0]), half_width(correlation[0, :side])


def half_width(correlation: np.ndarray) -> float:
    """Where a correlation that starts at 1 first falls to one half, interpolated."""
    index = max(int(np.argmax(correlation < 0.5)), 1)
    above, below = correlation[index - 1], correlation[index]
    return index - 1 + float((above - 0.5) / (above - below))


def print_table(groups: dict[str, list[Rain]]) -> None:
    """One line per group: means, with standard deviations where they say something."""
    columns = (
        "images",
        "PSNR",
        "sd",
        "SSIM",
        "sd",
        "mean",
        "sd",
        "p90",
        "p99",
        "wet",
        "tilt",
        "spread",
        "along",
        "across",
    )
    print(f"{'rain':<22}" + "".join(f"{name:>8}" for name in columns))
    for name, rains in groups.items():
        psnr, ssim = np.array([r.psnr for r in rains]), np.array([r.ssim for r in rains])
        clear = [r for r in rains if r.layer is not None]
        values = [r.layer[~np.isnan(r.layer)] for r in clear if r.layer is not None]
        means = np.array([v.mean() for v in values])
        numbers = [psnr.mean(), psnr.std(), ssim.mean(), ssim.std(), means.mean(), means.std()]
        numbers += [np.mean([np.percentile(v, percent) for v in values]) for percent in (90, 99)]
        numbers += [np.mean([(v > 0.02).mean() for v in values]), np.mean([abs(r.tilt) for r in clear])]
        numbers += [np.mean([getattr(r, name) for r in clear]) for name in ("spread", "along", "across")]
        print(f"{name:<22}{len(rains):>8}" + "".join(f"{number:>8.2f}" for number in numbers))


def plot_statistics(groups: dict[str, list[Rain]]) -> None:
    """Heavy rain in the upper row, light rain in the lower."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.2), constrained_layout=True)
    for row, kind in zip(axes, ("heavy", "light"), strict=True):
        chosen = {name.split(", ")[1]: rains for name, rains in groups.items() if name.startswith(kind)}
        plot_row(row, kind, chosen)
    figure.savefig(HERE / "rain_statistics.png", dpi=90)
    plt.close(figure)


def plot_row(row: np.ndarray, kind: str, chosen: dict[str, list[Rain]]) -> None:
    """Score, histogram, direction and size of one kind of rain."""
    psnr, histogram, tilt, size = row
    styles = {"real": ("black", 2.5), "drawn": ("tab:blue", 1.5), "with patterns": ("tab:orange", 1.5)}
    for position, (label, rains) in enumerate(chosen.items()):
        colour, width = styles[label]
        clear = [r for r in rains if r.layer is not None]
        scores = [r.psnr for r in rains]
        psnr.plot(scores, np.full(len(scores), -position), "|", color=colour, markersize=22, alpha=0.5)
        psnr.plot(np.mean(scores), -position, "D", color=colour)
        levels = [np.histogram(r.layer[~np.isnan(r.layer)], 25, (0, 1))[0] for r in clear if r.layer is not None]
        shares = np.mean([counts / counts.sum() for counts in levels], axis=0)
        histogram.semilogy(np.linspace(0.02, 0.98, 25), shares, color=colour, linewidth=width, label=label)
        tilts = np.histogram([r.tilt for r in clear], 18, (-45, 45))[0] / len(clear)
        tilt.step(np.linspace(-42.5, 42.5, 18), tilts, where="mid", color=colour, linewidth=width)
        size.plot([r.along for r in clear], [r.across for r in clear], ".", color=colour, markersize=4 + 2 * width)
    psnr.set(title=f"{kind} rain: input PSNR on Y, dB", yticks=-np.arange(len(chosen)), yticklabels=[*chosen])
    histogram.set(title="added light", xlabel="grey level / 255", ylabel="share of pixels", ylim=(1e-6, 1))
    histogram.legend()
    tilt.set(title="main direction", xlabel="degrees from upright", ylabel="share of images")
    size.set(title="streak size", xlabel="half width along, px", ylabel="across, px")


def plot_examples() -> None:
    """Drawn rain alone, without patterns, over a public-domain photo, and its layers."""
    photo = astronaut()[:200, 124:324].astype(np.float32) / np.float32(255)
    draws: list[Draw] = [
        light_rain,
        lambda rng, h, w: heavy_rain(rng, h, w, 0.1),
        lambda rng, h, w: heavy_rain(rng, h, w, 0.5),
        lambda rng, h, w: heavy_rain(rng, h, w, 1.0),
    ]
    layers = [draw(np.random.default_rng(11 + index), 200, 200) for index, draw in enumerate(draws)]
    upper = np.concatenate([photo, *(add_rain(photo, layer) for layer in layers)], axis=1)
    black = np.zeros_like(photo)
    lower = np.concatenate([black, *(add_rain(black, layer) for layer in layers)], axis=1)
    plt.imsave(HERE / "rain_drawn.png", np.concatenate([upper, lower], axis=0))


if __name__ == "__main__":
    sys.exit(main())
