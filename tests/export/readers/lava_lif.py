"""Lava's own Dense and LIF, floating point, on its CPU backend: layers that read frames, and some themselves too.

A program of its own, since importing Lava changes how a process starts others: `python -m tests.export.readers.lava_lif
IN.npz OUT.npz`. In, for each case: case/weight, case/frames, case/du, ... as below; out: case, its spikes (T, N).
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF


def run(case: dict[str, np.ndarray]) -> np.ndarray:
    """weight (N, inputs), frames (T, inputs), du, dv, threshold, bias (N,), and perhaps back (N, N)."""
    steps, size = len(case["frames"]), len(case["weight"])
    neurons = LIF(
        shape=(size,), du=float(case["du"]), dv=float(case["dv"]), vth=float(case["threshold"]), bias_mant=case["bias"]
    )
    source, sink = Source(data=case["frames"].T.astype(float)), Sink(shape=(size,), buffer=steps)
    dense = Dense(weights=case["weight"])
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neurons.a_in)
    neurons.s_out.connect(sink.a_in)
    if "back" in case:
        back = Dense(weights=case["back"])
        neurons.s_out.connect(back.s_in)
        back.a_out.connect(neurons.a_in)
    try:
        neurons.run(condition=RunSteps(steps), run_cfg=Loihi2SimCfg(select_tag="floating_pt"))
        return sink.data.get().T != 0
    finally:
        neurons.stop()


def main(source: str, target: str) -> None:
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(source) as file:
        for key in file.files:
            name, field = key.split("/")
            cases.setdefault(name, {})[field] = file[key]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # networkx looks for pandas, and warns
        np.savez(target, **{name: run(case) for name, case in cases.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
