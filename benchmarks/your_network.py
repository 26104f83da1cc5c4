"""What it takes to run and count a network of a user's, beside a plain snnTorch loop, and memory over the steps.

    python -m benchmarks.your_network [--rounds 7] [--markdown docs/benchmarks.md]

In: nothing; the networks are made here, with random weights. Out: a table of times and one of memory; --markdown puts
them into the page, in the place of those that are there.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import ROOT, Run, added_memory_mb, time_rounds
from esdnet.command.errors import UserError, report_user_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.network import Network

TITLE = "## A network of yours"
STEPS = 100
LONG = (1_000, 10_000)  # steps
COUNTED, PLAIN = "simulated and counted", "plain snnTorch loop"
RECURRENT, ACYCLIC, CONVOLUTIONAL = "recurrent", "feed-forward", "convolutional"


def snntorch_network(recurrent: bool, features: int = 100) -> Any:
    """Two layers with states passed by hand, as snnTorch's tutorials write them: (T, 1, features) -> (T, 1, 10)."""
    import snntorch as snn
    import torch
    from torch import nn

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(features, features), nn.Linear(features, 10)
            self.lif1 = snn.RLeaky(beta=0.9, linear_features=features) if recurrent else snn.Leaky(beta=0.9)
            self.lif2 = snn.Leaky(beta=0.9)

        def forward(self, frames):
            states = self.lif1.init_rleaky() if recurrent else (self.lif1.init_leaky(),)
            membrane, fired = self.lif2.init_leaky(), []
            for frame in frames:
                states = self.lif1(self.fc1(frame), *states)
                spikes, membrane = self.lif2(self.fc2(states[0]), membrane)
                fired.append(spikes)
                states = states if recurrent else states[1:]
            return torch.stack(fired)

    torch.manual_seed(0)
    return Loop().eval()


def convolutional() -> Network:
    """Of the shape of NIR's public cnn_sinabs: three convolutions with pools and two matrices, (2, 34, 34) -> (10,)."""
    import numpy as np

    from export.graph import nodes as g
    from export.graph.network import Network

    rng, nodes = (
        np.random.default_rng(0),
        [g.Input(name="x", channels=2, size=(34, 34), carries="spike", every_step=True)],
    )

    def add(kind: type[g.Node], name: str, **fields: Any) -> None:
        nodes.append(kind(name=name, inputs=(nodes[-1].name,), **fields))

    def layer(number: int, kind: type[g.Node], shape: tuple[int, ...], pool: bool, **fields: Any) -> None:
        weight = rng.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
        add(kind, f"layer{number}", weight=weight, **fields)
        add(g.EulerNeuron, f"if{number}", dt=1e-4, threshold=np.ones(()))
        if pool:
            add(g.Pool, f"pool{number}", function="sum", kernel=(2, 2), stride=(2, 2))

    layer(1, g.Conv, (16, 2, 5, 5), pool=False, stride=(2, 2), padding=(1, 1))
    layer(2, g.Conv, (16, 16, 3, 3), pool=True, padding=(1, 1))
    layer(3, g.Conv, (8, 16, 3, 3), pool=True, padding=(1, 1))
    add(g.Flatten, "flat")
    layer(4, g.Linear, (256, 128), pool=False)
    layer(5, g.Linear, (10, 256), pool=False)
    add(g.Output, "y")
    return Network(name=CONVOLUTIONAL, nodes=tuple(nodes), steps=1)


def spikes(shape: tuple[int, ...], steps: int) -> NDArray[np.bool_]:
    import numpy as np

    return np.random.default_rng(1).random((steps, *shape), dtype=np.float32) < 0.1


def contestants(name: str, steps: int) -> dict[str, Run]:
    """What is timed for one network: each call runs all the steps."""
    import torch

    from export.readers.snntorch import read_snntorch
    from hw_sim.backends.simulator import run_sequence

    if name == CONVOLUTIONAL:
        network, frames = convolutional(), spikes((2, 34, 34), steps)
        return {COUNTED: lambda: run_sequence(network, frames, keep_spikes=False)}
    module, frames = snntorch_network(name == RECURRENT), spikes((100,), steps)
    network, stream = read_snntorch(module, frames[:STEPS]), torch.from_numpy(frames).float()[:, None]

    def plain() -> object:
        with torch.inference_mode():
            return module(stream)

    return {
        PLAIN: plain,
        COUNTED: lambda: run_sequence(network, frames, keep_spikes=False),
        "the same in float32": lambda: run_sequence(network, frames, precision="float32", keep_spikes=False),
    }


def times(rounds: int) -> list[str]:
    """A line for everything that is timed."""
    lines = ["| network | | ms | ratio | CPU ms | ratio |", "|---|---|---:|---:|---:|---:|"]
    for name in (RECURRENT, ACYCLIC, CONVOLUTIONAL):
        runs = contestants(name, STEPS)
        for what, one in time_rounds(runs, rounds, next(iter(runs))).items():
            ratios = [f"{one[key]:.2f}" if len(runs) > 1 else "" for key in ("ratio", "cpu_ratio")]
            took = [f"{1e3 * one[key]:.1f}" for key in ("seconds", "cpu_seconds")]
            lines.append(f"| {name} | {what} | {took[0]} | {ratios[0]} | {took[1]} | {ratios[1]} |")
    return lines


def memory() -> list[str]:
    """A line for every network: MB that a run adds at its peak to a process that has run ten steps."""
    lines = [f"| network | {' | '.join(f'{steps:,} steps, MB' for steps in LONG)} |", "|---|---:|---:|"]
    for name in (RECURRENT, ACYCLIC, CONVOLUTIONAL):
        found = []
        for steps in LONG:
            command = [sys.executable, "-m", "benchmarks.your_network", "--memory-of", name, "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            found.append(f"{float(done.stdout):.0f}")
        lines.append(f"| {name} | {' | '.join(found)} |")
    return lines


def section(rounds: int) -> str:
    """The part of the page, in Markdown."""
    import torch

    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    where = (
        f"Written by `python -m benchmarks.your_network --rounds {rounds} --markdown docs/benchmarks.md`. "
        f"{models[0] if models else platform.processor()}, torch {torch.__version__} with 1 thread, Python "
        f"{platform.python_version()}; load of the machine when the run began: {os.getloadavg()[0]:.1f}. Medians of "
        f"{rounds} rounds of {STEPS} steps; ratios are taken within a round."
    )
    what = (
        "Recurrent: 100 inputs, Linear, RLeaky of 100 neurons, Linear, 10 Leaky; feed-forward: the same with a Leaky; "
        "random weights, snnTorch in float32. Convolutional: three convolutions, two pools, two matrices and five "
        "layers of IF on (2, 34, 34), of the shape of NIR's public cnn_sinabs. Simulated means in float64, each spike, "
        "AC and MAC of each step counted."
    )
    held = (
        "What a run adds at its peak, spikes not kept. Time is cut into chunks of at most 2^24 numbers (134 MB in "
        "float64, some of them twice for a moment); beyond a chunk only the output and the counts of each "
        "step grow. 10,000 steps of the two small networks are one chunk, of the convolutional one more than ten."
    )
    return "\n\n".join([TITLE, where, what, "\n".join(times(rounds)), held, "\n".join(memory())]) + "\n"


def kept_section(page: Path, title: str = TITLE) -> str:
    """The page from a title on, by default this section's, as it stands; empty if it has none."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return title + text.partition(title)[2] if title in text else ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="your_network.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="of which the medians are taken (default: 7)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the section at the end of this page")
    parser.add_argument("--memory-of", choices=(RECURRENT, ACYCLIC, CONVOLUTIONAL), help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=LONG[0], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    from esdnet.command.writing import check_writable, write_text

    if args.rounds < 1:
        raise UserError(f"--rounds: found {args.rounds}, expected at least 1")
    if args.markdown is not None:
        check_writable("--markdown", args.markdown)
    import torch

    torch.set_num_threads(1)
    if args.memory_of:
        contestants(args.memory_of, 10)[COUNTED]()  # what is imported and made once does not count
        print(added_memory_mb(contestants(args.memory_of, args.steps)[COUNTED]))
        return 0
    text = section(args.rounds)
    print(text)
    if args.markdown is not None:
        page = args.markdown.read_text(encoding="utf-8") if args.markdown.exists() else ""
        write_text(args.markdown, page.partition(TITLE)[0].rstrip() + "\n\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
