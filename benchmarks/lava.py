"""`python -m benchmarks.lava`: how long the Lava backend takes to start, to compile, and for each image.

Beside it, in the same run: the simulator; Lava's own Conv against ours, one 16-channel layer of the same size; and a
recurrent network on 100 steps of events.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.errors import report_user_errors

if TYPE_CHECKING:
    from export.graph.network import Network

CHANNELS = 16
STEPS = 100


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lava.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="small_released", help="architecture; the weights are random")
    parser.add_argument("--size", type=int, default=64, help="side of the square images")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--lava-model", choices=("fused", "fine"), default="fused")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from esdnet.networks.esdnet.config import preset
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ESDNet(preset(args.preset))
    with torch.no_grad():
        for _ in range(10):  # batch statistics, so that every layer fires
            model(torch.rand(2, 3, 32, 32))
    images = list(np.random.default_rng(0).random((args.images, 3, args.size, args.size)))
    print(f"{args.preset} at {args.size}x{args.size}, {args.precision}, {args.lava_model}, {args.images} images")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    _measure_network(lower(model.eval(), args.preset), images, args)
    _measure_convolutions(args.size)
    _measure_sequence()
    return 0


def _measure_network(network: Network, images: list, args: argparse.Namespace) -> None:
    from hw_sim.backends import simulator
    from hw_sim.backends.lava import LavaSession
    from hw_sim.backends.result import compare

    simulated = []
    expected = []
    for image in images:
        began = time.perf_counter()
        expected.append(simulator.run(network, image, precision=args.precision))
        simulated.append(time.perf_counter() - began)
    size = (args.size, args.size)
    with LavaSession(network, size, precision=args.precision, model=args.lava_model) as session:
        facts = session.facts
        print(f"  {facts['processes']} processes, {facts['shared_bytes'] / 2**20:.1f} MiB of channels,", end=" ")
        print(f"an image takes {facts['latency'] + network.steps} steps")
        engine = session._engine.process.pid
        alone, started = [], _cpu_seconds(engine)
        for image in images:
            began = time.perf_counter()
            session.run(image)
            alone.append(time.perf_counter() - began)
        between, began = _cpu_seconds(engine), time.perf_counter()
        streamed = list(session.stream(images))
        stream_s, ended = time.perf_counter() - began, _cpu_seconds(engine)
        differing = sum(compare(a, b).spike_mismatches for a, b in zip(expected, streamed, strict=True))
    _print("start of a Python with torch and Lava", facts["start_s"])
    _print("compile", facts["compile_s"])
    _print("first image", alone[0])
    _print("start, compile and first image", facts["start_s"] + facts["compile_s"] + alone[0])
    _print("each further image, alone (median)", statistics.median(alone[1:] or alone))
    _print("each image of a stream", stream_s / len(images))
    _print("CPU time of all processes until the first image", started)
    _print("CPU time of an image, alone", (between - started) / len(images))
    _print("CPU time of an image of a stream", (ended - between) / len(images))
    _print("the simulator, each image (median)", statistics.median(simulated))
    print(f"  spikes that differ from the simulator's: {differing}")


def _measure_convolutions(size: int) -> None:
    """Seconds per step of neurons and one convolution of their spikes, in Lava's own processes and in ours."""
    import numpy as np

    from export.graph.network import Network
    from export.graph.nodes import Conv, Input, Neuron, Output, Reduce, Repeat
    from hw_sim.backends.lava import LavaSession

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CHANNELS, CHANNELS, 3, 3))
    network = Network(
        name="one layer",
        steps=4,
        nodes=(
            Input(name="input", channels=CHANNELS),
            Repeat(name="coding", inputs=("input",)),
            Neuron(name="lif", inputs=("coding",), threshold=np.array(0.5), membrane_decay=0.5),
            Conv(name="conv", inputs=("lif",), weight=weight, padding=(1, 1)),
            Reduce(name="mean", inputs=("conv",), axes="T"),
            Output(name="output", inputs=("mean",)),
        ),
    )
    images = list(rng.random((4, CHANNELS, size, size)))
    seconds = {}
    for name, stock in (("ours", False), ("Lava's own", True)):
        with LavaSession(network, (size, size), precision="float64", model="fine", stock=stock) as session:
            session.run(images[0])
            before, steps = session.facts["run_s"], session.facts["steps"]
            for _ in session.stream(images):
                pass
            seconds[name] = (session.facts["run_s"] - before) / (session.facts["steps"] - steps)
    ratio = seconds["Lava's own"] / seconds["ours"]
    print(f"LIF and Conv, {CHANNELS} channels at {size}x{size}, float64, a step: ", end="")
    print(", ".join(f"{name} {value * 1000:.1f} ms" for name, value in seconds.items()), f"(ratio {ratio:.1f})")


def _measure_sequence() -> None:
    """Steps per second of a sequence, in both models and in the simulator."""
    import numpy as np

    from hw_sim.backends import simulator
    from hw_sim.backends.lava import LavaSession

    network = _recurrent_network()
    frames = np.random.default_rng(0).random((STEPS, 2, 34, 34)) < 0.05
    seconds = [_seconds(lambda: simulator.run_sequence(network, frames, keep_spikes=False)) for _ in range(3)]
    print(f"a recurrent network on events, {STEPS} steps, float64:")
    _print("the simulator, all steps", min(seconds))
    for model in ("fused", "fine"):
        with LavaSession(network, (34, 34), precision="float64", model=model) as session:
            engine = session._engine.process.pid
            session.run_sequence(frames)
            began = _cpu_seconds(engine)
            seconds = [_seconds(lambda: session.run_sequence(frames, keep_spikes=False)) for _ in range(5)]
            cpu = (_cpu_seconds(engine) - began) / 5
            best = min(seconds)
            _print(f"{model}, {session.facts['processes']} processes, all steps ({STEPS / best:.0f} a second)", best)
            _print(f"{model}, CPU time of all processes", cpu)


def _recurrent_network() -> Network:
    """Events, a convolution, a pool, and a layer of neurons that read each other."""
    import numpy as np

    from export.graph import nodes as g
    from export.graph.network import Network

    rng = np.random.default_rng(0)
    nodes: tuple[g.Node, ...] = (
        g.Input(name="events", channels=2, size=(34, 34), carries="spike", every_step=True),
        g.Conv(name="conv", inputs=("events",), weight=rng.normal(0, 0.3, (CHANNELS, 2, 3, 3)), block="first"),
        g.Neuron(name="lif", inputs=("conv",), threshold=np.array(0.5), membrane_decay=0.5, block="first"),
        g.Pool(name="pool", inputs=("lif",), function="max", kernel=(4, 4), stride=(4, 4), block="first"),
        g.Flatten(name="flat", inputs=("pool",), block="second"),
        g.Linear(name="fc", inputs=("flat",), weight=rng.normal(0, 0.1, (64, 1024)), block="second"),
        g.Linear(name="back", inputs=("rec",), late=("rec",), weight=rng.normal(0, 0.2, (64, 64)), block="second"),
        g.Leaky(name="rec", inputs=("fc", "back"), threshold=np.array(1.0), beta=np.array(0.9), block="second"),
        g.Linear(name="last", inputs=("rec",), weight=rng.normal(0, 0.2, (10, 64)), block="third"),
        g.Leaky(name="classes", inputs=("last",), threshold=np.array(1.0), beta=np.array(0.9), block="third"),
        g.Output(name="output", inputs=("classes",), block="third"),
    )
    return Network(name="recurrent", nodes=nodes, steps=STEPS)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(what: str, seconds: float) -> None:
    print(f"  {what:48s} {seconds:7.3f} s")


def _cpu_seconds(session_id: int) -> float:
    """CPU time so far of all processes of an engine, on which other work of the machine has little influence."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session_id:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
