"""Lava's own netx, in an interpreter of its own: FILE.net FRAMES.npy SPIKES.npy LAYERS INTERVAL.

In: a .net, spikes (T, C, H, W) that its input layer sends. Out: the spikes of layer LAYERS - 1, (T, C, H, W).
"""

from __future__ import annotations

import sys

import numpy as np


def main(net: str, frames: str, spikes: str, layers: str, interval: str) -> None:
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
    from lava.proc.io.source import RingBuffer as Source

    given = np.load(frames)
    network = hdf5.Network(
        net_config=net, num_layers=int(layers), skip_layers=1, reset_interval=int(interval) or None, reset_offset=1
    )
    source = Source(data=given.transpose(3, 2, 1, 0).astype(np.int32))
    sink = Extractor(shape=network.out.shape, buffer_size=len(given))
    source.s_out.connect(network.inp)
    network.out.connect(sink.in_port)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={sink: PyLoihiExtractorModel})
    try:
        network.run(condition=RunSteps(num_steps=len(given)), run_cfg=config)
        received = np.stack([sink.receive() for _ in given])
    finally:
        network.stop()
    np.save(spikes, (received.transpose(0, 3, 2, 1) if received.ndim == 4 else received[..., None, None]) > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
