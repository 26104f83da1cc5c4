from __future__ import annotations

import numpy as np
import pytest
import torch

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError, ValueKind
from export.graph.schedule import schedule
from export.graph.stream import Stream, run_once
from hw_sim.backends import simulator
from hw_sim.backends.simulator import run_sequence

RNG = np.random.default_rng(0)


def network(*nodes: g.Node, outputs: tuple[str, ...] = ("lif",), carries: str = "analog") -> Network:
    given = g.Input(name="x", channels=5, size=(1, 1), carries=carries, every_step=True)
    ends = (g.Output(name=f"y{number}", inputs=(name,)) for number, name in enumerate(outputs))
    return Network(name="n", nodes=(given, *nodes, *ends), steps=1)


def linear(name: str, source: str, size: int = 5, **fields) -> g.Linear:
    return g.Linear(name=name, inputs=(source,), weight=RNG.normal(size=(5, size)), **fields)


def leaky(name: str, *sources: str, **fields) -> g.Leaky:
    return g.Leaky(name=name, inputs=sources, beta=np.array(0.8), threshold=np.array(0.5), **fields)


def loop() -> Network:
    """A cycle with a membrane of its own read twice, a late edge out of it, a node on neither side of it."""
    return network(
        linear("fc", "x"), linear("back", "lif", late=("lif",)), leaky("lif", "fc", "back"),
        linear("apart", "lif", late=("lif",)), *(g.Membrane(name=name, inputs=("lif",)) for name in ("u", "v")),
        outputs=("lif", "apart", "u", "v"),
    )  # fmt: skip


def frames(steps: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(steps, 5))


def test_a_cycle_is_one_group_and_everything_else_alone():
    assert schedule(loop()) == (
        ("x",), ("fc",), ("back", "lif"), ("apart",), ("u",), ("v",), ("y0",), ("y1",), ("y2",), ("y3",),
    )  # fmt: skip


def test_step_by_step_by_hand():
    net = loop()
    weight = {name: net[name].weight for name in ("fc", "back", "apart")}
    outputs, _ = run_once(net, frames())
    membrane, fired = np.zeros(5), np.zeros(5)
    for step, frame in enumerate(frames()):
        before, last = (membrane > 0.5) * 1.0, fired
        membrane = 0.8 * membrane + weight["fc"] @ frame + weight["back"] @ last - before * 0.5
        fired = (membrane > 0.5) * 1.0
        assert np.array_equal(outputs["y0"][step, :, 0, 0], fired)
        assert np.allclose(outputs["y1"][step, :, 0, 0], weight["apart"] @ last, rtol=0, atol=1e-12)
        assert np.allclose(outputs["y2"][step, :, 0, 0], membrane, rtol=0, atol=1e-12)
    assert np.array_equal(outputs["y2"], outputs["y3"])


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_chunks_of_time_change_nothing(monkeypatch, at_once):
    """States, late values and membranes go on from one chunk to the next; counts are those of all steps."""
    net = loop()
    whole = run_sequence(net, frames())
    monkeypatch.setattr(simulator, "AT_ONCE", at_once * sum(5 for _ in net.nodes))
    parts = run_sequence(net, frames())
    assert all(np.array_equal(parts.outputs[name], value) for name, value in whole.outputs.items())
    assert np.array_equal(parts.spikes["lif"], whole.spikes["lif"])
    assert all(parts.counts[name].totals() == counts.totals() for name, counts in whole.counts.items())
    assert len(parts.counts["fc"].macs) == 40


def test_acs_of_a_late_reader_are_of_what_it_read():
    net = loop()
    steps = int(np.flatnonzero(run_sequence(net, frames()).spikes["lif"].any((1, 2, 3)))[-1]) + 1
    result = run_sequence(net, frames()[:steps])
    spikes = result.spikes["lif"][:, :, 0, 0]
    assert spikes[-1].any()  # which nobody reads any more
    assert result.counts["back"].totals()["acs"] == 5 * int(spikes[:-1].sum())
    assert np.array_equal(result.counts["back"].acs[1:], 5 * spikes[:-1].sum(1))


def test_what_looks_at_all_steps_has_no_place_on_a_cycle():
    matrix = g.Linear(name="over time", inputs=("lif",), late=("lif",), weight=np.eye(1), axis="T")
    with pytest.raises(NetworkError, match=r"over time \(linear\): on a cycle, but it looks at all steps"):
        run_sequence(network(linear("fc", "x"), matrix, leaky("lif", "fc", "over time")), frames(1))


def test_kinds_of_a_cycle_are_the_most_that_something_makes_of_them():
    """Spikes until a sum makes more of them; a zero before the first step is neutral."""
    delayed = g.Delay(name="wait", inputs=("lif",), late=("lif",), steps=np.array(2.0))
    net = network(linear("fc", "x"), delayed, linear("back", "wait"), leaky("lif", "fc", "back"))
    assert net.kinds["wait"] is ValueKind.SPIKE
    counter = g.Add(name="count", inputs=("lif", "count"), late=("count",))
    net = network(linear("fc", "x"), leaky("lif", "fc"), counter, outputs=("count",))
    assert net.kinds["count"] is ValueKind.GRADED
    outputs, spikes = run_once(net, frames())
    assert np.array_equal(outputs["y0"], spikes["lif"].cumsum(0))


def test_a_cycle_that_nothing_leads_into_is_refused():
    nodes = (linear("a", "b", late=("b",)), linear("b", "a"))
    with pytest.raises(NetworkError, match=r"a .linear.: on a cycle that nothing else leads into"):
        network(*nodes, outputs=("b",))


def test_values_are_let_go_when_the_last_has_read_them():
    class Watching(Stream):
        held = 0

        def see(self, node: g.Node, value: torch.Tensor) -> None:
            self.held = max(self.held, len(self.values))

    chain = [linear(f"l{number}", f"l{number - 1}" if number else "x") for number in range(20)]
    net = network(*chain, outputs=("l19",))
    stream = Watching(net.with_steps(4), (1, 1), torch.float64, torch.device("cpu"))
    stream.feed(torch.zeros(4, 5, 1, 1, dtype=torch.float64))
    assert stream.held <= 3


def test_an_image_leaves_no_membranes_behind():
    """They are as large as the values; a network of sixty neurons would hold them all."""
    image = g.Input(name="x", channels=5, size=(1, 1))
    nodes = (image, g.Repeat(name="again", inputs=("x",)), linear("fc", "again"), leaky("lif", "fc"))
    net = Network(name="n", nodes=(*nodes, g.Output(name="y", inputs=("lif",))), steps=4)
    stream = Stream(net, (1, 1), torch.float64, torch.device("cpu"))
    stream.feed(torch.zeros(1, 5, 1, 1, dtype=torch.float64))
    assert not stream.states
