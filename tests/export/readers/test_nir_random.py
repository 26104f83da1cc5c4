"""Random NIR graphs: what is read and run equals an independent interpreter, every spike, operation and output bit."""

from __future__ import annotations

from collections import Counter

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from export.readers.nir import read_nir
from export.readers.nir_file import FIELDS
from hw_sim.backends.simulator import run_sequence
from tests.export.readers import nir_steps
from tests.export.readers.random_nir import random_nir
from tests.tolerances import FLOAT64_OUTPUT

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def agrees(graph: nir.NIRGraph, frames: np.ndarray, path, subtract: bool) -> int:
    """Compare all there is to compare; returns the number of spikes."""
    nir.write(path, graph)
    carries = "spike" if frames.dtype == bool else "analog"
    network = read_nir(path, reset="subtract" if subtract else "v_reset", carries=carries)
    found = run_sequence(network, frames)
    expected = nir_steps.run(graph, frames, subtract=subtract)
    for name, node in expected.items():
        if name not in found.counts:  # the Input or Output of a nested graph
            continue
        counts, value = found.counts[name], np.array(node.value, float)
        assert int(counts.spikes.sum()) == node.spikes, name
        assert int(counts.acs.sum()) == node.acs, name
        assert int(counts.macs.sum()) == node.macs, name
        assert int(counts.nonzero_macs.sum()) == node.effective, name
        if name in found.spikes:
            assert np.array_equal(found.spikes[name], value.reshape(found.spikes[name].shape) != 0), name
    outputs = found.outputs or {network.output.name: found.output}
    for name, output in outputs.items():
        value = np.array(expected[name].value, float)
        assert np.abs(output.reshape(value.shape) - value).max() <= FLOAT64_OUTPUT * max(1.0, np.abs(value).max())
    return sum(node.spikes for node in expected.values())


@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
@given(random_nir(), st.booleans())
def test_random_graphs(tmp_path, drawn, subtract):
    agrees(*drawn, tmp_path / "random.nir", subtract)


@pytest.mark.slow
def test_many_random_graphs(tmp_path):
    """1,000 of them, of which most spike and many have cycles, and every primitive is in many."""
    seen: Counter[str] = Counter()

    @settings(max_examples=1000, deadline=None, suppress_health_check=QUIET, database=None, phases=[Phase.generate])
    @given(random_nir(), st.booleans())
    def run(drawn: tuple[nir.NIRGraph, np.ndarray], subtract: bool) -> None:
        spikes = agrees(*drawn, tmp_path / "random.nir", subtract)
        nodes, edges = nir_steps.flatten(drawn[0])
        seen.update({type(node).__name__ for node in nodes.values()})
        seen.update(["graphs"], spiking=spikes > 0, cycles=bool(nir_steps.late_edges(set(nodes), edges)))
        seen.update(sums=len({reader for _, reader in edges}) < len(edges))

    run()
    primitives = FIELDS.keys() - {"Input", "Output"}
    assert seen["graphs"] >= 1000
    assert min(seen[part] for part in ("spiking", "cycles", "sums")) >= 250
    assert min((seen[kind], kind) for kind in primitives) > (25, "")
