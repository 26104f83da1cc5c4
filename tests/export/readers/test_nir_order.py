"""Which edges are late: by the graph alone, whatever the names and the order of the file."""

from __future__ import annotations

import itertools

import pytest

from export.graph.nodes import NetworkError
from export.readers.nir_order import late_edges, running_order


def edges(text: str) -> list[tuple[str, str]]:
    """'a>b>c b>a': paths."""
    return [pair for path in text.split() for pair in itertools.pairwise(path.split(">"))]


def late(text: str, delays: str = "") -> set[tuple[str, str]]:
    """Late edges; the rest can be run in an order, in which every node comes after what it reads."""
    all_edges = edges(text)
    names = {name for edge in all_edges for name in edge}
    found = late_edges(names, all_edges, delays.split())
    order = running_order(names, all_edges, found)
    assert all(order.index(source) < order.index(reader) for source, reader in set(all_edges) - found)
    assert found == late_edges(sorted(names, reverse=True), all_edges[::-1], delays.split())
    return found


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("in>a>b>out in>b", ""),
        ("in>lif>out lif>w>lif", "w>lif"),
        ("in>lif>out lif>lif", "lif>lif"),
        ("in>lif1>fc>lif2>out lif2>back>lif1", "back>lif1"),
        ("in>lif1>fc>lif2>out lif2>back>lif1 lif2>w>lif2", "back>lif1 w>lif2"),
        ("in>a>b>a in>b>out", "a>b b>a"),  # two entries: both populations hear each other's last step
        ("in>a>x>b>y>a in>b>out", "x>b y>a"),
        ("in>a>b>c>a c>b c>out", "c>a c>b"),  # nested loops: the outer at a, the inner at b
        ("in>a>b>a in>c>d>c b>c d>out", "b>a d>c"),
    ],
)
def test_late_edges(graph, expected):
    assert late(graph) == set(edges(expected))


def test_names_do_not_matter():
    shape = "in>{0}>{1}>{2}>{0} {2}>{1} {2}>out"
    for names in itertools.permutations("abc"):
        assert late(shape.format(*names)) == set(edges("{2}>{0} {2}>{1}".format(*names)))


def test_a_delay_on_a_cycle_is_late_by_itself():
    assert late("in>a>d>a a>out", "d") == {("a", "d")}
    assert late("in>a>d>a in>d a>out", "d") == {("a", "d"), ("in", "d")}  # then so is all that it reads
    assert late("in>d>a>out", "d") == set()
    assert late("in>a>d>a a>b>a b>out", "d") == {("a", "d"), ("b", "a")}


def test_a_cycle_that_nothing_leads_into():
    with pytest.raises(NetworkError, match=r"^a: on a cycle that no edge leads into, expected one from outside"):
        late_edges({"in", "a", "b", "out"}, edges("in>out a>b>a"), ())
