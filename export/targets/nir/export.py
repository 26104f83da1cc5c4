"""A network to NIR files that were read back and run before they appear: what to_nir.py and `export.to_nir` do.

In: one of our networks in torch, for a folder of segments; or any Network with frames, for one stock file. Out: files,
and what was found, line by line. CheckFailed, and nothing is written, if they do not compute what they must.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from esdnet.command.errors import CheckFailed, UserError
from esdnet.command.writing import written_beside
from export.graph.agreement import differing_spikes
from export.graph.check_images import sample_image, small_images
from export.graph.network import Network
from export.graph.rules import Design, enforce, find_violations
from export.graph.stream import run_once
from export.readers.esdnet import lower
from export.readers.nir import read_nir
from export.targets.nir.check import CheckReport, check_export
from export.targets.nir.report import table, warnings
from export.targets.nir.rules import NIR_RULES, neuron_modules_are_plain
from export.targets.nir.stock_file import write_file
from export.targets.nir.write import write_folder

Say = Callable[[str], None]


def write_model(model: Any, network: Network, size: tuple[int, int], target: Path, say: Say) -> None:
    """The folder of a model and of its Network, `checked_network` for images of `size` (height, width)."""
    with written_beside(target) as beside:
        report = _write_and_check(model, network, size, beside, say)
        if report.failures:
            raise CheckFailed(f"{report.failures[0]} ({len(report.failures)} failures)")
        for line in warnings(network, report):
            print(f"note: {line}", file=sys.stderr)
    say(f"wrote {target} ({_size(target) / 1e6:.1f} MB), for images of {size[0]}x{size[1]}")


def checked_network(model: Any, height: int, width: int) -> Network:
    """The layer graph of a model that keeps every design rule of NIR; all violations are raised at once."""
    violations = list(neuron_modules_are_plain(model))
    try:
        network = lower(model)
    except UserError as error:  # a neuron that lowering refuses is often one of those above: say both
        enforce("NIR", [*violations, str(error)])
        raise
    enforce("NIR", [*violations, *find_violations(NIR_RULES, Design(network, height, width))])
    return network


def write_network(network: Network, frames: NDArray[Any], target: Path, say: Say) -> None:
    """One stock file of any Network; read back and run on `frames`, every neuron must fire the same spikes."""
    given = frames  # of a network that shows itself one frame: the file is given it at every step
    if not network.input.every_step:
        frames = frames[None].repeat(network.steps, axis=0)
    with written_beside(target) as beside:
        nodes = write_file(network, beside)
        back = read_nir(beside, carries=network.input.carries)
        _, expected = run_once(network, given)
        _, found = run_once(back, frames)
        mismatches, first = differing_spikes(expected, found)
        if mismatches:
            raise CheckFailed(f"{first} in the file read back ({sum(mismatches.values())} in all)")
    fired = sum(int(spikes.sum()) for spikes in expected.values())
    say(f"wrote {target}: {nodes} nodes; read back, 0 of {fired:,} spikes differ in {len(frames)} steps")
    if not fired:
        print("note: nothing spiked on this input: the check proves nothing of the neurons", file=sys.stderr)


def _write_and_check(model: Any, network: Network, size: tuple[int, int], path: Path, say: Say) -> CheckReport:
    height, width = size
    print(f"writing {len(network.nodes)} operations for {height}x{width} ...", file=sys.stderr)
    manifest = write_folder(network, height, width, path)
    images = {"sample": sample_image(height, width), **small_images(network)}
    print(f"checking: {len(images)} images in a fresh interpreter, float64 ...", file=sys.stderr)
    report = check_export(path, model, network, images)
    say(table(network, manifest, report))
    return report


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
