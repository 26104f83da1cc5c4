"""`python -m benchmarks.energy_models`: under which published energy models do the spiking networks save energy?

In: the three spiking checkpoints and the photo that ship (or --images DIR), or with --recorded the counts of the last
--write. Out: the answer and the verdict tables of docs/energy.md, which --write puts there. Dim 48 is not trained: it
is counted at the firing rates of dim 16, as benchmarks/energy_study.py does.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import write_text
from hw_sim.pricing.all_models import verdict_words
from hw_sim.pricing.counted import nafnet_on
from hw_sim.pricing.layer_facts import LayerFacts, make_layer
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.thresholds import load_thresholds, stand
from hw_sim.pricing.verdicts import VARIANTS, ModelRow, Verdict, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks/energy_models.json"
PAGE = ROOT / "docs/energy.md"
PARTS = ("answer", "verdicts")  # of the page, each between two marks
REUSE = VARIANTS["lemaire2022"][-1].label
OF_MEMORY = ("weights", "potentials", "input_output")  # parts of an energy
SIZE = 256  # pixels a side: the paper's Table 1
KINDS = ("released", "spike-driven", "gated")


@dataclass(frozen=True)
class Network:
    """A network and what its layers did on each image."""

    name: str
    images: list[list[LayerFacts]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="energy_models.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of rainy images (default: the one that ships)")
    parser.add_argument("--limit", type=int, default=8, help="images taken from the folder (default: 8)")
    parser.add_argument("--recorded", action="store_true", help="price the recorded counts, without running anything")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}, record the counts")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _study(args))


def _study(args: argparse.Namespace) -> int:
    if args.images and (args.recorded or args.write):
        raise UserError("--images: the recorded counts and the page are of the photo that ships; leave it out")
    networks = read_record(RECORD) if args.recorded else measure(args.images, args.limit)
    texts = page_parts(networks)
    print("\n".join(texts.values()))
    if args.write:
        if not args.recorded:
            write_record(RECORD, networks)
        write_text(PAGE, put(PAGE.read_text(encoding="utf-8"), texts))
    return 0


def measure(folder: Path | None = None, limit: int = 8) -> list[Network]:
    """Every kind at dim 16 as it ran, and at dim 48 with its rates."""
    import torch

    from benchmarks import energy_study
    from esdnet.networks.bundled import find_checkpoint
    from esdnet.networks.checkpoint import load_checkpoint
    from esdnet.networks.esdnet.config import preset
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator
    from hw_sim.pricing.from_counts import layer_facts

    images: list[NDArray[np.float32]] = energy_study.load_images(folder, limit)
    found = []
    for kind in KINDS:
        small_name, full_name = energy_study.KINDS[kind]
        model = load_checkpoint(find_checkpoint(small_name))
        small = lower(model, small_name)
        torch.manual_seed(0)
        full = lower(ESDNet(preset(full_name)).eval(), full_name)
        runs = [simulator.run(small, image, keep_spikes=False).counts for image in images]
        scaled = [energy_study.counts_at_rates(full, energy_study.layer_rates(small, run)) for run in runs]
        for config, network, counts in ((model.config, small, runs), (preset(full_name), full, scaled)):
            facts = [layer_facts(network, each, (SIZE, SIZE), looks_at_values=False) for each in counts]
            found.append(Network(f"{kind}, dim {config.dim}", facts))
    return found


def write_record(path: Path, networks: list[Network]) -> None:
    """The counts of the photo; a line for each layer, fields that have their default left out."""
    plain = asdict(LayerFacts("", "other"))
    lines = []
    for network in networks:
        layers = [
            {key: value for key, value in asdict(layer).items() if value != plain[key]} | {"kind": layer.kind}
            for layer in network.images[0]
        ]
        rows = ",\n".join(json.dumps(layer, separators=(",", ":")) for layer in layers)
        lines.append(f"{json.dumps(network.name)}: [\n{rows}\n]")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_record(path: Path) -> list[Network]:
    """The networks of a record, one image each."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Network(name, [[make_layer(layer) for layer in layers]]) for name, layers in content.items()]


def put(page: str, texts: dict[str, str]) -> str:
    """The page with each text between its two marks."""
    for name, text in texts.items():
        begin, end = f"<!-- {name}: written by benchmarks/energy_models.py -->", f"<!-- end of the {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise UserError(f"{PAGE.name}: expected the lines {begin} and {end} once each")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"
    return page


def page_parts(networks: list[Network]) -> dict[str, str]:
    """What stands between the marks of the page."""
    models = [load_model(name) for name in available_models()]
    nafnet = nafnet_on((SIZE, SIZE)).layers
    rows = [[judge(layers, models, nafnet) for layers in network.images] for network in networks]
    return dict(zip(PARTS, (answer(networks, rows), tables(networks, rows)), strict=True))


def answer(networks: list[Network], rows: list[list[list[ModelRow]]]) -> str:
    """Least and most of all models with an answer, by what they price; rows: by network, image, model and variant."""
    names = " | ".join(network.name for network in networks)
    lines = [f"| energy over that of | if what is priced is | {names} |", "|---" * (len(networks) + 2) + "|"]
    for other, verdict_of in (
        ("NAFNet", lambda row: row.against_reference),
        ("its own layers, run once as an ANN", lambda row: row.against_own),
    ):
        for priced in ("arithmetic", "memory too", "memory, which the ANN reads once"):
            of_networks = [
                [verdict_of(row) for image in images for row in image if _priced(row) == priced] for images in rows
            ]
            lines.append(f"| {other} | {priced} | {' | '.join(_range(verdicts) for verdicts in of_networks)} |")
    return "\n".join([*lines, ""])


def _priced(row: ModelRow) -> str:
    """Which of the answer's rows a verdict belongs to."""
    if row.variant == REUSE:
        return "memory, which the ANN reads once"
    return "memory too" if any(row.energy.parts[part] is not None for part in OF_MEMORY) else "arithmetic"


def _range(verdicts: list[Verdict]) -> str:
    ratios = sorted(verdict.ratio for verdict in verdicts if verdict.ratio)
    said = {verdict.word for verdict in verdicts if verdict.ratio}
    word = "depends" if len(said) > 1 else {"wins": "**saves**", "loses": "costs more"}[said.pop()]
    least, most = (f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}" for ratio in (ratios[0], ratios[-1]))
    return f"{word}: {least} to {most}"


def tables(networks: list[Network], rows: list[list[list[ModelRow]]]) -> str:
    """Both verdict tables and the thresholds."""
    names = [network.name for network in networks]
    return "\n".join(
        [
            f"Energy at {SIZE}x{SIZE} over that of **NAFNet** (width 32, its own 16.04 GMACs and 29.16 M parameters):",
            "",
            *_table(names, [[[row.against_reference for row in image] for image in images] for images in rows], rows),
            "",
            "Over that of **its own layers run once as an ANN**:",
            "",
            *_table(names, [[[row.against_own for row in image] for image in images] for images in rows], rows),
            "",
            "Beside published thresholds:",
            "",
            *_thresholds(networks),
            "",
        ]
    )


def _table(names: list[str], verdicts: list[list[list[Verdict | None]]], rows: list[list[list[ModelRow]]]) -> list[str]:
    """A line for each model and way of asking; verdicts: by network, image, row."""
    lines = [f"| model | asked | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for index, row in enumerate(rows[0][0]):
        cells = [_cell([image[index] for image in images]) for images in verdicts]
        lines.append(f"| `{row.model.name}` | {row.variant} | {' | '.join(cells)} |")
    return lines


def _cell(verdicts: list[Verdict | None]) -> str:
    """One verdict; of several images the lowest and the highest."""
    words = [verdict_words(verdict) for verdict in sorted(verdicts, key=_order)]
    return words[0] if words[0] == words[-1] else f"{words[0]} to {words[-1]}"


def _order(verdict: Verdict | None) -> float:
    known = verdict or Verdict("no answer")
    return known.ratio or known.break_even_mac_j or 0.0


def _thresholds(networks: list[Network]) -> list[str]:
    """Quantities and verdicts in words, of the first image."""
    lines = [f"| quantity | {' | '.join(network.name for network in networks)} |", "|---" * (len(networks) + 1) + "|"]
    standings = [stand(network.images[0], load_thresholds()) for network in networks]
    for of_quantity in zip(*standings, strict=True):
        cells = [f"{each.value:.3g}, {each.verdict}" for each in of_quantity]
        lines.append(f"| {of_quantity[0].quantity} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
