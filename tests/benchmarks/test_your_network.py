from __future__ import annotations

import numpy as np
import pytest

from benchmarks.your_network import ACYCLIC, CONVOLUTIONAL, COUNTED, PLAIN, RECURRENT, TITLE, contestants, kept_section


@pytest.mark.parametrize("name", [RECURRENT, ACYCLIC])
def test_both_contestants_compute_the_same(name):
    """The loop in float32: with these weights no membrane comes near enough to its threshold."""
    runs = contestants(name, 20)
    fired, result = runs[PLAIN](), runs[COUNTED]()
    assert fired.sum() > 0
    assert np.array_equal(result.output.reshape(20, 10), fired[:, 0].numpy())


def test_every_layer_of_the_convolutional_network_fires():
    result = contestants(CONVOLUTIONAL, 20)[COUNTED]()
    layers = [counts.totals()["spikes"] for name, counts in result.counts.items() if name.startswith("if")]
    assert len(layers) == 5
    assert min(layers) > 0


def test_the_section_of_a_page_is_found_again(tmp_path):
    page = tmp_path / "page.md"
    assert kept_section(page) == ""
    page.write_text(f"# Page\n\n## Other\n\n{TITLE}\n\nnumbers\n")
    assert kept_section(page) == f"{TITLE}\n\nnumbers\n"
