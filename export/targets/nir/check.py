"""Checking a NIR export after writing: read back in a fresh interpreter, run, compared with the torch model.

In: an export, the torch model that it came from, and images. Out: per neuron the number of spikes that differ, and how
many of them near-ties explain; the largest difference of an output; whether the Network read back is the one written,
bit for bit. Each layer runs on the spikes that torch fired before it, so that one spike that fell the other way is not
counted again with all that follow from it; where none does, that is the run as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script by `check_export`: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import report_user_errors
from export.graph.network import Network
from export.graph.nodes import Array, Neuron
from export.graph.store import network_digest
from export.targets.nir.read import Export, decode_network, open_export


@dataclass(frozen=True)
class CheckReport:
    """What the images showed, all together. By neuron: spikes in the torch model, those that differ without a near-tie
    (`mismatches`) and at one (`at_ties`), those that the other form of NIR's equation fires otherwise (`other_form`).

    `near_ties`: in words. `failures`: what breaks the promise, in words; empty if the export is good.
    """

    failures: tuple[str, ...]
    spikes: dict[str, int] = field(default_factory=dict)
    mismatches: dict[str, int] = field(default_factory=dict)
    at_ties: dict[str, int] = field(default_factory=dict)
    other_form: dict[str, int] = field(default_factory=dict)
    output_difference: float = float("nan")
    same_network: bool = False
    near_ties: tuple[str, ...] = ()


def write_reference(path: Path, model: Any, network: Network, images: Mapping[str, Array]) -> list[str]:
    """What an export must reproduce: the model's outputs, its spikes as bits, where its near-ties are, the Network's
    digest. Returns the near-ties in words."""
    from export.graph.near_ties import describe_near_ties
    from export.graph.witness import follow

    stored: dict[str, Any] = {"digest": network_digest(network), "images": list(images)}
    near_ties: list[str] = []
    for label, image in images.items():
        found: dict[str, Any] = {"image": image}

        def keep(name: str, value: Array, found: dict[str, Any] = found) -> None:
            if name == network.output.name:
                found["output"] = value[0]
            elif isinstance(network[name], Neuron):
                found[f"spikes/{name}"] = np.packbits(value > 0.5)

        watch = follow(model, network, image, keep)
        found |= {f"ties/{tie.neuron}": tie.where for tie in watch.near_ties}
        near_ties += [f"{label}: {line}" for line in describe_near_ties(watch.near_ties)]
        stored |= {f"{label}/{key}": value for key, value in found.items()}
    np.savez(path, **stored)
    return near_ties


def check_export(path: Path, model: Any, network: Network, images: Mapping[str, Array]) -> CheckReport:
    """Run `model` here and the export in a fresh interpreter, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.npz"
        near_ties = write_reference(reference, model, network, images)
        command = [sys.executable, str(Path(__file__).resolve()), str(path), str(reference)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return CheckReport((f"the export could not be read back: {lines[-1]}",))
    return CheckReport(**{**json.loads(done.stdout), "near_ties": near_ties})


def compare_export(path: Path, reference: Path) -> CheckReport:
    """Run the export on the images of a reference file and compare, in this process."""
    export = open_export(path)
    network = decode_network(export)
    with np.load(reference, allow_pickle=False) as expected:
        comparison = _Comparison(export, network, expected)
        for label in expected["images"]:
            comparison.run(str(label))
        return comparison.report(network_digest(network) == str(expected["digest"]))


class _Comparison:
    """An export against what torch found, image by image, layer by layer on the spikes that torch fired."""

    def __init__(self, export: Export, network: Network, expected: Any) -> None:
        from export.targets.nir.run import OpenedExport  # torch: only for an export that can be read

        self.opened, self.network, self.expected, self.label = OpenedExport(export, network), network, expected, ""
        self.spikes, self.mismatches, self.at_ties, self.other_form = (Counter[str]() for _ in range(4))
        self.failures: list[str] = []
        self.largest = 0.0

    def run(self, label: str) -> None:
        """One image through the whole export."""
        from export.graph.agreement import FLOAT64_OUTPUT, output_within

        self.label, prefix = label, f"{label}/spikes/"
        names = {node.name for node in self.network.neurons}
        odd = sorted(names ^ {key.removeprefix(prefix) for key in self.expected.files if key.startswith(prefix)})
        if odd:
            self.failures.append(f"{label}: {odd[0]}: a neuron of one side only ({len(odd)} such)")
            return
        wanted = self.expected[f"{label}/output"]
        output = self.opened.run(self.expected[f"{label}/image"], self.see, self.other_form)
        difference = float(np.abs(output - wanted).max())
        self.largest = float(np.fmax(self.largest, difference))
        if not output_within(wanted, output):
            self.failures.append(f"{label}: output: differs by {difference:.3g}, promised {FLOAT64_OUTPUT:g}")

    def see(self, name: str, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Compare a neuron's spikes (T, C, H, W) with torch's, and hand on torch's."""
        from export.graph.agreement import in_words, suspects
        from export.graph.near_ties import explained

        bits = self.expected[f"{self.label}/spikes/{name}"]
        wanted = np.unpackbits(bits, count=found.size).reshape(found.shape).astype(bool)
        differs = wanted != found
        ties = explained(differs, self.expected.get(f"{self.label}/ties/{name}", np.zeros(0, np.int64)))
        self.spikes[name] += int(wanted.sum())
        self.at_ties[name] += int(ties.sum())
        self.mismatches[name] += int((differs & ~ties).sum())
        if (differs & ~ties).any():
            where = suspects(self.network, name)
            self.failures.append(f"{self.label}: {where}: {in_words(name, differs & ~ties)}, no near-tie explains them")
        return wanted

    def report(self, same_network: bool) -> CheckReport:
        """All of it."""
        if not same_network:
            self.failures.append("network: the one read back is not the one written")
        spikes, mismatches, at_ties, other_form = map(
            dict, (self.spikes, self.mismatches, self.at_ties, self.other_form)
        )
        return CheckReport(tuple(self.failures), spikes, mismatches, at_ties, other_form, self.largest, same_network)


def main(argv: list[str] | None = None) -> int:
    """`nir_check.py EXPORT REFERENCE`: print the report as JSON."""
    path, reference = (Path(value) for value in (sys.argv[1:] if argv is None else argv))

    def body() -> int:
        print(json.dumps(asdict(compare_export(path, reference))))
        return 0

    return report_user_errors(body)


if __name__ == "__main__":
    sys.exit(main())
