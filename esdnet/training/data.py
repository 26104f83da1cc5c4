"""Sources of training and evaluation pairs: folders in the deraining benchmarks' layouts, and rain drawn afresh.

A source gives random crops (rainy, clean), float32 (3, crop, crop) in [0, 1]; a folder also lists its whole pairs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from esdnet.command.errors import UserError
from esdnet.images.files import list_images, load_image
from esdnet.training.rain import add_rain, heavy_rain, light_rain

DRY_SHARE = 0.05  # of the crops have no rain unless asked otherwise, so that dry photos are left as they are
LIGHT_SHARE = 0.5  # of the others whose rain is drawn, unless asked otherwise; the rest goes from mid to heavy
PASTED_SHARE = 0.35  # of the crops take a layer of real benchmark rain, where there are any
TURNED_SHARE = 0.1  # of the crops are turned by 90 degrees with their rain, as a few benchmark images are
UNKNOWN_LIMIT = 0.01  # of a pasted layer's pixels may be clipped in all channels, so that their rain is unknown


class PairSource(Protocol):
    """Whatever can be trained on."""

    def sample(self, rng: np.random.Generator, crop: int) -> tuple[np.ndarray, np.ndarray]:
        """A random augmented crop: rainy and clean, float32 (3, crop, crop) in [0, 1]."""
        ...

    def validation_pairs(self, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(name, rainy, clean) of the images held out, float32 (H, W, 3), always the same for a seed."""
        ...


@dataclass(frozen=True)
class Pair:
    """One image of a folder: target is None where there is none, and equal to `rainy` where both lie side by side."""

    name: str
    rainy: Path
    target: Path | None

    def load(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Rainy and clean image, float64 (H, W, 3) in [0, 1]; clean is None without a target."""
        rainy = load_image(self.rainy)
        if self.target is None:
            return rainy, None
        if self.target == self.rainy:
            if rainy.shape[1] % 2:
                raise UserError(f"{self.rainy}: width {rainy.shape[1]} is odd, expected rainy and clean side by side")
            half = rainy.shape[1] // 2
            return rainy[:, :half], rainy[:, half:]
        clean = load_image(self.target)
        if clean.shape != rainy.shape:
            raise UserError(f"{self.target}: {_size(clean)} pixels, but {self.rainy} has {_size(rainy)}")
        return rainy, clean


class SyntheticRain:
    """Clean photos with rain drawn afresh for every crop.

    `streaks` is a folder of streak patterns, `pasted` a folder of pairs (input/, target/) whose rain, input minus
    target, is pasted too; both are optional. `held_out` photos, spread evenly over the sorted names, are kept
    for validation. `dry_share` of the crops have no rain; of those whose rain is drawn `light_share` have light rain.
    UserError for a share that is none.
    """

    def __init__(
        self,
        photos: Path,
        streaks: Path | None = None,
        pasted: Path | None = None,
        held_out: int = 0,
        dry_share: float = DRY_SHARE,
        light_share: float = LIGHT_SHARE,
    ) -> None:
        for name, share in (("dry", dry_share), ("light", light_share)):
            if not 0 <= share <= 1:
                raise UserError(f"synthetic rain: the share of {name} crops must be from 0 to 1, found {share}")
        self.dry_share, self.light_share = dry_share, light_share
        paths = list_images(photos)
        kept = _spread(len(paths), held_out, f"{photos}: {len(paths)} photos")
        self._held_out = [path for index, path in enumerate(paths) if index in kept]
        self._photos = [(path, _to_bytes(load_image(path))) for index, path in enumerate(paths) if index not in kept]
        self._patterns = [] if streaks is None else [_load_pattern(path) for path in list_images(streaks)]
        self._pasted = [] if pasted is None else _load_rain_layers(pasted)

    def sample(self, rng: np.random.Generator, crop: int) -> tuple[np.ndarray, np.ndarray]:
        """See PairSource. The photo is turned before it rains, the pair mirrored afterwards: most rain falls."""
        path, photo = self._photos[rng.integers(len(self._photos))]
        clean = _turn_randomly(rng, _cut(rng, photo, crop, path).astype(np.float32) / np.float32(255))
        rainy = clean if rng.random() < self.dry_share else add_rain(clean, self._draw_rain(rng, crop, crop))
        mirror, turned = rng.random() < 0.5, rng.random() < TURNED_SHARE
        return _as_planes(rainy, mirror, turned), _as_planes(clean, mirror, turned)

    def validation_pairs(self, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(name, rainy, clean) of the photos held out, float32 (H, W, 3): light and heavy rain by turns, fixed by seed.

        Patterns and pasted rain are not used, so the pairs depend on the photos and the seed alone.
        """
        pairs = []
        for index, path in enumerate(self._held_out):
            rng = np.random.default_rng([seed, index])
            clean = _to_bytes(load_image(path)).astype(np.float32) / np.float32(255)
            height, width = clean.shape[:2]
            heavy = index % 2 == 1
            layer = heavy_rain(rng, height, width, rng.random()) if heavy else light_rain(rng, height, width)
            pairs.append((f"{path.stem}_{'heavy' if heavy else 'light'}", add_rain(clean, layer), clean))
        return pairs

    def _draw_rain(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        if self._pasted and rng.random() < PASTED_SHARE:
            layer = _paste(rng, self._pasted, height, width)
            if layer is not None:
                return layer
        if rng.random() < self.light_share:
            return light_rain(rng, height, width, self._patterns)
        return heavy_rain(rng, height, width, rng.random(), self._patterns)


class PairedFolder:
    """A benchmark on disk. Layouts:

    paired    input/ and target/, matched by name without its ending
    rain12    *_in.* and *_GT.* anywhere, or equal names in rainy/ (or input/) and groundtruth/ (or gt/, target/)
    rain200   rain/X2/norain-1x2.png (or rain/, rainy/, input/) and norain/norain-1.png (or target/, gt/)
    rain1200  one folder of images with rainy left and clean right
    rw-data   one folder of rainy images without targets

    An image without its partner is named in a warning on stderr and left out; UserError if no pair is left.
    `held_out` pairs, spread evenly over the sorted names, are not trained on but kept for validation.
    """

    def __init__(self, root: Path, layout: str = "paired", held_out: int = 0) -> None:
        if layout not in _LAYOUTS:
            raise UserError(f"layout {layout!r} is unknown: expected one of {', '.join(_LAYOUTS)}")
        if not root.is_dir():
            raise UserError(f"{root}: no such folder")
        self._root = root
        self._pairs = _LAYOUTS[layout](root)
        kept = _spread(len(self._pairs), held_out, f"{root}: {len(self._pairs)} pairs")
        self._held_out = [pair for index, pair in enumerate(self._pairs) if index in kept]
        self._training = [pair for index, pair in enumerate(self._pairs) if index not in kept]
        self._decoded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def pairs(self) -> list[Pair]:
        """All pairs, sorted by name."""
        return list(self._pairs)

    def sample(self, rng: np.random.Generator, crop: int) -> tuple[np.ndarray, np.ndarray]:
        """See PairSource: flips and turns by 90 degrees, all equally likely; images stay decoded in memory as bytes."""
        pair = self._training[rng.integers(len(self._training))]
        if pair.name not in self._decoded:
            rainy, clean = self._load(pair)
            self._decoded[pair.name] = _to_bytes(rainy), _to_bytes(clean)
        both = np.concatenate(self._decoded[pair.name], axis=2)
        planes = _turn_randomly(rng, _cut(rng, both, crop, pair.rainy)).transpose(2, 0, 1)
        planes = np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255)
        return planes[:3], planes[3:]

    def validation_pairs(self, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """See PairSource; a folder's pairs are what they are, whatever the seed."""
        loaded = [(pair.name, *self._load(pair)) for pair in self._held_out]
        return [(name, rainy.astype(np.float32), clean.astype(np.float32)) for name, rainy, clean in loaded]

    def _load(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        rainy, clean = pair.load()
        if clean is None:
            raise UserError(f"{self._root}: {pair.name} has no target, so it cannot be trained on")
        return rainy, clean


def open_training_source(
    spec: str,
    photos: Path | None,
    streaks: Path | None,
    pasted: Path | None,
    held_out: int,
    dry_share: float = DRY_SHARE,
    light_share: float = LIGHT_SHARE,
) -> PairSource:
    """'synthetic' (rain over `photos`) or the path of a folder with input/ and target/."""
    if spec != "synthetic":
        if photos or streaks or pasted or (dry_share, light_share) != (DRY_SHARE, LIGHT_SHARE):
            raise UserError(
                f"--data {spec}: its pairs have their rain; --photos, --streaks, --pasted, --dry-share and "
                "--light-share are for --data synthetic"
            )
        return PairedFolder(Path(spec), held_out=held_out)
    if photos is None:
        raise UserError("synthetic rain needs a folder of clean photos")
    return SyntheticRain(photos, streaks, pasted, held_out, dry_share, light_share)


def _spread(count: int, held_out: int, found: str) -> set[int]:
    """Places of the `held_out` among `count` images, evenly spread."""
    if not 0 <= held_out < count:
        raise UserError(f"{found}, cannot hold out {held_out} and train on the rest")
    return {round(index * count / held_out) for index in range(held_out)}


def _find_paired(root: Path) -> list[Pair]:
    return _match(root, _by_key(list_images(root / "input"), str), _by_key(list_images(root / "target"), str))


def _find_rain12(root: Path) -> list[Pair]:
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    files = [path for folder in folders for path in _images_or_none(folder)]
    is_clean = {path: path.stem.lower().endswith("_gt") or path.parent.name.lower() in _CLEAN_FOLDERS for path in files}
    rainy, clean = ([path for path in files if is_clean[path] == wanted] for wanted in (False, True))
    return _match(root, _by_key(rainy, _rain12_key), _by_key(clean, _rain12_key))


def _find_rain200(root: Path) -> list[Pair]:
    rainy = _first_folder(root, ("rain/X2", "rain", "rainy", "input"))
    clean = _first_folder(root, ("norain", "target", "gt"))
    return _match(root, _by_key(rainy, _rain200_key), _by_key(clean, _rain200_key))


def _find_rain1200(root: Path) -> list[Pair]:
    return [Pair(path.stem, path, path) for path in list_images(root)]


def _find_rw_data(root: Path) -> list[Pair]:
    return [Pair(path.stem, path, None) for path in list_images(root)]


_LAYOUTS: dict[str, Callable[[Path], list[Pair]]] = {
    "paired": _find_paired,
    "rain12": _find_rain12,
    "rain200": _find_rain200,
    "rain1200": _find_rain1200,
    "rw-data": _find_rw_data,
}
LAYOUTS = tuple(_LAYOUTS)
_CLEAN_FOLDERS = ("groundtruth", "ground truth", "gt", "target", "norain")


def _rain12_key(stem: str) -> str:
    """001_in and 001_GT name the same scene."""
    return re.sub(r"_(in|gt)$", "", stem, flags=re.IGNORECASE)


def _rain200_key(stem: str) -> str:
    """norain-12x2, norain-12, rain-12 and 12 name the same scene."""
    found = re.fullmatch(r"(?:no)?(?:rain-)?(\d+)(?:x2)?", stem.lower())
    return found.group(1) if found else stem


def _by_key(paths: list[Path], key: Callable[[str], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = key(path.stem)
        if name in found:
            raise UserError(f"{path}: {found[name].name} is there too, expected one image named {name}")
        found[name] = path
    return found


def _match(root: Path, rainy: dict[str, Path], clean: dict[str, Path]) -> list[Pair]:
    names = sorted(rainy.keys() & clean.keys())
    orphans = [str((rainy.get(name) or clean[name]).relative_to(root)) for name in sorted(rainy.keys() ^ clean.keys())]
    listed = ", ".join(orphans[:5]) + (f" and {len(orphans) - 5} more" if len(orphans) > 5 else "")
    if not names:
        raise UserError(f"{root}: no rainy image has a target of the same name (without partner: {listed or 'none'})")
    if orphans:
        print(f"warning: {root}: {len(orphans)} images without partner are left out: {listed}", file=sys.stderr)
    return [Pair(name, rainy[name], clean[name]) for name in names]


def _images_or_none(folder: Path) -> list[Path]:
    try:
        return list_images(folder)
    except UserError:
        return []


def _first_folder(root: Path, names: tuple[str, ...]) -> list[Path]:
    for name in names:
        if found := _images_or_none(root / name):
            return found
    raise UserError(f"{root}: expected images in one of {', '.join(name + '/' for name in names)}")


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.floor(image * 255.0 + 0.5).astype(np.uint8)


def _load_pattern(path: Path) -> np.ndarray:
    """A streak pattern as float32 (H, W) of light in [0, 1]."""
    return load_image(path)[..., 0].astype(np.float32)


def _load_rain_layers(folder: Path) -> list[np.ndarray]:
    """Input minus target as float32 (H, W), from the channels that are not clipped; NaN where all of them are."""
    layers = []
    for pair in PairedFolder(folder).pairs():
        rainy, clean = pair.load()
        difference = np.where(rainy < 1.0, rainy - clean, -1.0).max(axis=2)
        layers.append(np.where((rainy < 1.0).any(axis=2), np.maximum(difference, 0.0), np.nan).astype(np.float32))
    return layers


def _paste(rng: np.random.Generator, layers: list[np.ndarray], height: int, width: int) -> np.ndarray | None:
    """A crop of a real layer, mirrored half of the time; None if eight tries found only crops that are clipped."""
    for _ in range(8):
        layer = layers[rng.integers(len(layers))]
        if layer.shape[0] < height or layer.shape[1] < width:
            continue
        top, left = rng.integers(layer.shape[0] - height + 1), rng.integers(layer.shape[1] - width + 1)
        part = layer[top : top + height, left : left + width]
        if np.isnan(part).mean() <= UNKNOWN_LIMIT:
            return np.nan_to_num(part[:, ::-1] if rng.random() < 0.5 else part)
    return None


def _cut(rng: np.random.Generator, image: np.ndarray, crop: int, path: Path) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) < crop:
        raise UserError(f"{path}: {width}x{height} pixels, too small for crops of {crop}x{crop}")
    top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
    return image[top : top + crop, left : left + crop]


def _turn_randomly(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    image = np.rot90(image, rng.integers(4))
    return image[:, ::-1] if rng.random() < 0.5 else image


def _as_planes(image: np.ndarray, mirror: bool, turned: bool) -> np.ndarray:
    """(H, W, 3) to contiguous (3, H, W), mirrored left to right or turned where asked."""
    image = image[:, ::-1] if mirror else image
    image = np.rot90(image) if turned else image
    return np.ascontiguousarray(image.transpose(2, 0, 1))
