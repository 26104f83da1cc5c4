"""Random graphs through the exports: the stock file read back, and the ONNX model of a step, fire the same spikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.stream import run_once
from export.readers.nir import read_nir
from export.targets.nir.stock_file import write_file
from export.targets.onnx.run import run_sequence as run_onnx
from tests.export.readers.random_nir import random_nir
from tests.tolerances import FLOAT64_OUTPUT

Values = dict[str, np.ndarray]
Run = Callable[[Network, np.ndarray], tuple[Values, Values]]


def assert_equal(network: Network, frames: np.ndarray, other: Run) -> int:
    """Every spike, and the outputs within the rounding of sums in another order; returns the number of spikes."""
    (outputs, spikes), (found, fired) = run_once(network, frames), other(network, frames)
    assert fired.keys() == spikes.keys()
    for name, value in spikes.items():
        assert np.array_equal(fired[name], value), name
    for name, value in outputs.items():
        assert np.abs(found[name].reshape(value.shape) - value).max() <= FLOAT64_OUTPUT * max(1.0, np.abs(value).max())
    return sum(int(value.sum()) for value in spikes.values())


def many(path: Path, other: Run, examples: int) -> Counter[str]:
    """Random graphs, until so many are drawn: how many were equal, spiked, had cycles, or were refused and why."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(random_nir())
    def run(drawn: tuple[nir.NIRGraph, np.ndarray]) -> None:
        graph, frames = drawn
        nir.write(path, graph)
        network = read_nir(path, carries="spike" if frames.dtype == bool else "analog")
        try:
            spikes = assert_equal(network, frames, other)
        except NetworkError as error:
            seen[str(error).partition("): ")[2].partition(",")[0]] += 1
            return
        seen.update(equal=1, spiking=spikes > 0, cycles=any(node.late for node in network.nodes))

    run()
    print(seen)
    return seen


@pytest.mark.slow
def test_stock_files_read_back(tmp_path):
    def by_file(network: Network, frames: np.ndarray) -> tuple[Values, Values]:
        write_file(network, tmp_path / "written.nir")
        nir.read(tmp_path / "written.nir")  # plain nir opens it too
        return run_once(read_nir(tmp_path / "written.nir", carries=network.input.carries), frames)

    seen = many(tmp_path / "drawn.nir", by_file, 800)
    assert seen["equal"] >= 300
    assert min(seen["spiking"], seen["cycles"]) >= 100


@pytest.mark.slow
def test_step_models_in_onnx_runtime(tmp_path):
    seen = many(tmp_path / "drawn.nir", run_onnx, 350)
    assert seen["equal"] >= 300
    assert min(seen["spiking"], seen["cycles"]) >= 100
