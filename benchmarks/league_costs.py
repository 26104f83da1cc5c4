"""What a deraining network costs: operations as they run, energy under every published model, CPU time.

In: a torch network, and the photo that ships. Out: plain numbers, as league.json holds them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hw_sim
from esdnet.images.crops import middle
from esdnet.images.files import load_image, to_tensor
from hw_sim.pricing.energy import Energy
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.verdicts import variants

PHOTO = Path(__file__).resolve().parents[1] / "esdnet/sample/rainy.png"
SIZE = 256  # pixels a side: the paper's Table 1
COUNTED = ("macs", "acs", "spikes")
TIMED = 3  # runs, of which the median is taken


def costs(network: nn.Module) -> dict[str, Any]:
    """MACs, ACs and spikes of one run on the middle of the photo; energy in uJ by model and way of asking, None where
    it has no price for some of the work; CPU seconds per megapixel on one thread, nothing counted."""
    photo = load_image(PHOTO)
    image = to_tensor(photo[middle(photo.shape[:2], (SIZE, SIZE))], torch.float32)
    report = hw_sim.count(network.eval(), image, strict=True)
    layers = [layer.facts for layer in report.layers]
    found: dict[str, Any] = {name: report.totals[name] for name in COUNTED}
    return found | {"energy_uj": energies(layers), "cpu_seconds_per_megapixel": seconds_per_megapixel(network, image)}


def energies(layers: list[LayerFacts]) -> dict[str, float | None]:
    """Microjoules by "model, way of asking". A network without additions is asked as an ANN is."""
    spikes = any(layer.acs for layer in layers)
    found = {}
    for model in map(load_model, available_models()):
        for variant in variants(model):
            energy = price(model, layers, variant.network if spikes else variant.ann)
            refused = bool(model.no_ann) and not spikes
            found[f"{model.name}, {variant.label}"] = None if refused else _priced_uj(energy)
    return found


def _priced_uj(energy: Energy) -> float | None:
    return None if energy.unpriced or not energy.total_j else energy.total_j * 1e6


def seconds_per_megapixel(network: nn.Module, image: torch.Tensor) -> float:
    """CPU time of this process, the median of some runs after one that is not timed."""
    pixels = image.shape[-2] * image.shape[-1]
    taken = []
    with torch.inference_mode():
        for _ in range(TIMED + 1):
            started = time.process_time()
            network(image)
            taken.append(time.process_time() - started)
    return statistics.median(taken[1:]) / pixels * 1e6
