"""The files: stock graphs open with nir.read, both forms give back the same Network, damage is named in one line."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch
from nir.serialization import read_version

from esdnet.command.errors import UserError
from export.graph.folder import MANIFEST, file_digest, manifest_digest
from export.graph.network import Network
from export.graph.nodes import NetworkError, Node
from export.graph.store import encode_node, network_digest
from export.targets.nir.graph import DT_S, encode_lif
from export.targets.nir.read import FORMAT, open_export, read_network
from export.targets.nir.run import run_export, run_graph
from export.targets.nir.write import write_folder
from hw_sim.backends.result import compare
from hw_sim.backends.simulator import run
from tests.export.networks import image, mixed_network, neuron, stock_networks

SHAPE = (8, 12)


def write(found: Network, folder: Path, shape: tuple[int, int] = SHAPE) -> Path:
    write_folder(found, *shape, folder / "out_nir")
    return folder / "out_nir"


@pytest.mark.parametrize("name", [*stock_networks(), "mixed", "tiny", "spike driven"])
def test_the_network_comes_back_to_the_last_bit(name, tmp_path, tiny_network, spike_driven_network):
    tiny = {"tiny": tiny_network, "spike driven": spike_driven_network}
    found = {**stock_networks(), "mixed": mixed_network(), **tiny}[name]
    back = read_network(write(found, tmp_path))
    assert network_digest(back) == network_digest(found)
    assert [node.name for node in back.nodes] == [node.name for node in found.nodes]
    for node, other in zip(found.nodes, back.nodes, strict=True):
        for key, value in vars(node).items():
            assert np.array_equal(value, getattr(other, key))


def test_output_spikes_and_counts_are_the_checkpoints(golden, golden_network, tmp_path):
    """The authors' network: the Network read back gives the same bits, and their own counts of operations."""
    back = read_network(write(golden_network, tmp_path, (32, 32)))
    picture = golden.input[0, :, :32, :32]
    expected, found = (run(item, picture, precision="float64") for item in (golden_network, back))
    comparison = compare(expected, found)
    assert comparison.equal_spikes
    assert comparison.max_difference == 0.0
    assert set(expected.counts) == set(found.counts)


def test_the_files_run_as_the_simulator_runs_the_network(golden, golden_network, tmp_path):
    path = write(golden_network, tmp_path, (32, 32))
    picture = golden.input[0, :, :32, :32]
    expected = run(golden_network, picture, precision="float64", count=False)
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(path), read_network(path), picture, spikes.__setitem__)
    assert all(value.any() for value in expected.spikes.values())  # every layer is exercised
    assert all(np.array_equal(spikes[name], value) for name, value in expected.spikes.items())
    assert np.abs(output - expected.output).max() < 1e-12


def test_every_stock_graph_opens_with_nir_read(golden_network, tmp_path):
    path = write(golden_network, tmp_path)
    files = sorted(path.glob("*.nir"))
    assert len(files) == len(open_export(path).segments) > 5
    for file in files:
        graph = nir.read(file)
        assert {type(node).__name__ for node in graph.nodes.values()} <= {"Input", "Output", "Conv2d", "LIF"}
        assert len(graph.inputs) == len(graph.outputs) == 1
        assert graph.metadata["dt"] == DT_S
        assert read_version(file) == nir.version


def test_lif_parameters_are_full_arrays_of_the_documented_encoding(tmp_path):
    path = write(stock_networks()["threshold per channel"], tmp_path)
    (file,) = path.glob("*.nir")
    lif = nir.read(file).nodes["m"]
    assert lif.tau.shape == lif.v_threshold.shape == (3, *SHAPE)
    assert np.unique(lif.tau).tolist() == [2e-4]
    assert np.unique(lif.r).tolist() == [1.0]
    assert not lif.v_leak.any()
    assert not lif.v_reset.any()
    expected = [np.nextafter(threshold * 0.5, -np.inf) for threshold in (0.15, 0.4, 1.3)]
    assert lif.v_threshold[:, 0, 0].tolist() == expected
    assert (lif.v_threshold == lif.v_threshold[:, :1, :1]).all()


@pytest.mark.parametrize(("fires", "expected"), [(">", 0.075), (">=", np.nextafter(0.075, -np.inf))])
def test_the_firing_rule_is_in_the_threshold(fires, expected):
    assert encode_lif(neuron("l", "x", fires=fires))["v_threshold"] == expected


def test_what_a_float32_importer_sees():
    """As docs/nir.md says: the threshold rounds up to the tie itself, and the formula there gives the number below."""
    stored = encode_lif(neuron("l", "x"))["v_threshold"]
    tie = np.float32(0.5) * np.float32(0.15)
    assert np.float32(stored) == tie
    repaired = np.nextafter(np.float32((1 - 0.5) * 0.15), np.float32(-np.inf))
    assert repaired < tie
    assert np.nextafter(repaired, np.float32(np.inf)) == tie


def test_a_threshold_of_zero_keeps_its_meaning():
    assert encode_lif(neuron("l", "x", threshold=np.array(0.0)))["v_threshold"] < 0.0


def test_lif_parameters_cost_almost_nothing_on_disk(tmp_path):
    """Five arrays of (C, H, W) float64 per LIF: their size must not show in the file."""
    found = stock_networks()["threshold per channel"]
    small, large = tmp_path / "small", tmp_path / "large"
    write_folder(found, 4, 4, small)
    write_folder(found, 128, 128, large)
    sizes = [sum(file.stat().st_size for file in path.glob("*.nir")) for path in (small, large)]
    expanded = 2 * 5 * 3 * 128 * 128 * 8  # LIFs, parameters, channels, pixels, bytes
    assert sizes[1] - sizes[0] < expanded / 100
    (file,) = large.glob("*.nir")
    with h5py.File(file) as content:
        for key in ("tau", "r", "v_leak", "v_reset", "v_threshold"):
            dataset = content["node/nodes/m"][key]
            assert (dataset.compression, dataset.shuffle) == ("gzip", True)


def test_memory_does_not_grow_with_the_lif_parameters(tmp_path):
    """At 512x512 the LIF parameters of the chain are 55 MB; writing holds none, reading one channel of one (2 MB)."""
    found = stock_networks()["chain"]
    expanded = 5 * 8 * (4 * 512 * 512 + 5 * 256 * 256)
    assert expanded > 50e6
    tracemalloc.start()
    write_folder(found, 512, 512, tmp_path / "nir")
    peak_writing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_network(tmp_path / "nir")
    peak_reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_writing < 4e6
    assert peak_reading < 8e6


def test_the_manifest_says_what_a_stranger_needs(tmp_path):
    manifest = json.loads((write(mixed_network(), tmp_path) / MANIFEST).read_text())
    assert (manifest["format"], manifest["version"], manifest["dt"]) == ("esdnet-nir", 2, 1e-4)
    assert (manifest["steps_per_image"], manifest["precision"]) == (4, "float64")
    assert "v > v_threshold" in manifest["firing_rule"]
    assert {"python", "nir", "numpy", "torch"} <= set(manifest["packages"])
    assert manifest["input_shape"] == [1, 3, *SHAPE]
    assert [step.get("segment") for step in manifest["steps"]] == [
        None, "00_embed.nir", "01_down.nir", None, "02_l3.nir", None,
    ]  # fmt: skip
    step = manifest["steps"][1]
    assert (step["inputs"], step["outputs"]) == (["coding"], ["embed", "l1"])
    assert (step["input_shape"], step["output_shape"]) == ([3, *SHAPE], [8, *SHAPE])
    assert set(manifest["files"]) == {"00_embed.nir", "01_down.nir", "02_l3.nir", "arrays.npz"}


def test_equal_networks_give_equal_files(tmp_path):
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(write(mixed_network(), tmp_path / name))
    contents = [[file.read_bytes() for file in sorted(path.iterdir())] for path in paths]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", stock_networks())
def test_a_network_without_host_operations_is_one_stock_graph(name, tmp_path):
    """nir.read opens it, and it runs as the simulator runs the network; its Input gets the frame at every step."""
    found = stock_networks()[name]
    path = write(found, tmp_path)
    (segment,) = path.glob("*.nir")
    graph = nir.read(segment)
    assert {type(node).__name__ for node in graph.nodes.values()} == {"Input", "Output", "Conv2d", "LIF"}
    expected = run(found, image(), precision="float64", count=False)
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(path), read_network(path), image(), spikes.__setitem__)
    assert np.array_equal(output, expected.output)
    assert all(np.array_equal(spikes[name], value) for name, value in expected.spikes.items())
    stream = torch.from_numpy(image()).expand(4, -1, -1, -1)
    assert np.array_equal(run_graph(graph, stream, DT_S, spikes.__setitem__).numpy(), output)


# --- refused, each in one line ----------------------------------------------------------------------------------------


def edit_manifest(path: Path, change, seal: bool) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    change(manifest)
    if seal:
        manifest["sha256"] = manifest_digest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


def refused(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read_network(path)
    assert "\n" not in str(caught.value)
    assert str(path.name) in str(caught.value)


def test_nothing_there(tmp_path):
    refused(tmp_path / "none", "nothing there; expected the folder that")


def test_a_foreign_folder(tmp_path):
    refused(tmp_path, r"manifest.json is missing")
    (tmp_path / MANIFEST).write_text('{"format": "other"}')
    refused(tmp_path, "not the manifest of an ESDNet NIR export")
    (tmp_path / MANIFEST).write_text("{")
    refused(tmp_path, "cannot be read as an ESDNet NIR export")


def test_a_foreign_file(tmp_path):
    path = write(stock_networks()["chain"], tmp_path)
    stock = next(path.glob("*.nir"))
    refused(stock, r"00_a_conv\.nir: a file; expected the folder that export/to_nir.py writes")


def test_a_truncated_export(tmp_path):
    path = write(mixed_network(), tmp_path)
    victim = path / "01_down.nir"
    victim.write_bytes(victim.read_bytes()[:-100])
    refused(path, r"changed or cut short after it was written \(its hash differs\)")


def test_a_missing_segment(tmp_path):
    path = write(mixed_network(), tmp_path)
    (path / "01_down.nir").unlink()
    refused(path, r"01_down.nir: missing, the export is incomplete")


def test_a_hand_edited_weight(tmp_path):
    path = write(mixed_network(), tmp_path)
    victim = path / "01_down.nir"
    with h5py.File(victim, "r+") as content:
        content["node/nodes/down/weight"][0, 0, 0, 0] += 1.0
    refused(path, "changed or cut short")


def test_a_hand_edited_manifest(tmp_path):
    path = write(mixed_network(), tmp_path)
    edit_manifest(path, lambda manifest: manifest.update(dt=1e-3), seal=False)
    refused(path, "was changed after it was written")


def test_a_newer_or_older_export(tmp_path):
    path = write(mixed_network(), tmp_path)
    edit_manifest(path, lambda manifest: manifest.update(version=3), seal=True)
    refused(path, "format 3, this program reads 2; update the program")
    edit_manifest(path, lambda manifest: manifest.update(version=1), seal=True)
    refused(path, "format 1, this program reads 2; write it again with export/to_nir.py")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m["nodes"][3].update(threshold={"number": 0.2}), "v_threshold of its LIF is not that of the neuron"),
        (lambda m: m["nodes"][2].update(kind="Warp"), "unknown kind of node 'Warp': a newer program wrote this export"),
        (lambda m: m["nodes"][2]["weight"].update(array=[1]), r"weight has shape \[4, 3, 3, 3\], expected \[1\]"),
        (lambda m: m["nodes"][2].update(surprise=1), "the export contradicts itself"),
        (lambda m: m["nodes"].pop(), "0 Output nodes, expected 1"),
        (lambda m: m.pop("nodes"), "the export contradicts itself"),
    ],
)
def test_a_manifest_that_contradicts_the_graphs(tmp_path, change, match):
    """Even with a hash made anew: what the manifest states is compared with the files."""
    path = write(mixed_network(), tmp_path)
    edit_manifest(path, change, seal=True)
    refused(path, match)


def forge(path: Path, change, file: str = "01_down.nir") -> None:
    """Change the graph of an export, then make all its hashes anew."""
    victim = path / file if path.is_dir() else path
    with h5py.File(victim, "r+") as content:
        change(content["node"])
    if path.is_dir():
        edit_manifest(path, lambda manifest: manifest["files"].update({file: file_digest(victim)}), seal=True)
    else:
        content = victim.read_bytes()


def rewrite(group, key: str, value) -> None:
    del group[key]
    group.create_dataset(key, data=value)


def cut_edge(source: str, reader: str):
    def change(top):
        kept = [edge for edge in top["edges"][()].tolist() if edge != [source.encode(), reader.encode()]]
        assert len(kept) == len(top["edges"]) - 1
        rewrite(top, "edges", kept)

    return change


def turn_edge(top) -> None:
    edges = top["edges"][()].tolist()
    rewrite(top, "edges", [*edges[:-1], [edges[-1][1], edges[-1][0]]])


FORGED = {
    "a stride": (lambda top: rewrite(top["nodes/down"], "stride", [1, 1]), "down: stride in the graph is not that of"),
    "a padding": (lambda top: rewrite(top["nodes/down"], "padding", [0, 0]), "down: padding in the graph is not that"),
    "a dilation": (lambda top: rewrite(top["nodes/deep"], "dilation", [2, 2]), "deep: dilation in the graph is not"),
    "groups": (lambda top: rewrite(top["nodes/deep"], "groups", 2), "deep: groups in the graph is not that of the man"),
    "a size": (lambda top: rewrite(top["nodes/deep"], "input_shape", [9, 9]), "deep: input_shape in the graph is not"),
    "a threshold": (
        lambda top: top["nodes/l2/v_threshold"].__setitem__((0, 0, 0), 0.5),
        "l2: v_threshold of its LIF is not that of the neuron in the manifest",
    ),
    "a leak": (lambda top: top["nodes/l2/v_leak"].__setitem__((0, 0, 0), 0.5), "l2: v_leak of its LIF is not that of"),
    "a type": (lambda top: rewrite(top["nodes/l2"], "type", "IF"), "l2: type IF in the graph, LIF in the manifest"),
    "an edge": (cut_edge("l2", "deep"), "deep: reads l2 in the manifest, but not in the graph"),
    "a node": (lambda top: top["nodes"].move("l2", "l9"), "l2: a node of the manifest, but not of the graph"),
    "one node more": (lambda top: top["nodes"].copy("l2", "l9"), "l9: a node of the graph, but not of the manifest"),
    "a time step": (lambda top: rewrite(top["metadata"], "dt", 1e-3), "the graph's dt is not 0.0001 s"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_graph_with_forged_hashes_is_compared_with_the_manifest(tmp_path, what):
    """Every hash is right: what is compared is what a reader of the graph would run."""
    change, match = FORGED[what]
    path = write(mixed_network(), tmp_path)
    forge(path, change)
    refused(path, match)


def test_the_selecting_convolutions_of_a_graph_are_compared_too(tmp_path):
    """They are no nodes of the network: a channel taken from another place would not show in any weight of it."""
    path = write(mixed_network(), tmp_path)
    forge(path, lambda top: top["nodes/up.selected/weight"].__setitem__((0, 0), 0.5), "02_l3.nir")
    refused(path, r"up\.selected: weight in the graph is not that of the manifest")


def test_a_turned_edge_is_found(tmp_path):
    path = write(mixed_network(), tmp_path)
    forge(path, turn_edge)
    refused(path, "output: reads deep in the manifest, but not in the graph")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(dt=1e-3), "manifest: dt 0.001, expected 0.0001 s"),
        (lambda m: m["shapes"].update(down=[4, 6, 8, 12]), r"down: shape \[4, 6, 8, 12\] in the manifest, its inputs"),
        (lambda m: m["steps"][1]["nodes"].pop(), "its steps do not hold every node once"),
        (lambda m: m["nodes"][4].update(stride=[1, 1]), r"skip \(concat\): shapes .* differ in more than"),
        (lambda m: m["nodes"][6].update(inputs=["down"]), "deep: reads down in the manifest, but not in the graph"),
    ],
)
def test_a_manifest_that_contradicts_itself(tmp_path, change, match):
    path = write(mixed_network(), tmp_path)
    edit_manifest(path, change, seal=True)
    refused(path, match)


def test_only_exports_count_as_exports(tmp_path):
    assert FORMAT.is_export(write(mixed_network(), tmp_path))
    (tmp_path / "text").write_text("hello")
    assert not FORMAT.is_export(tmp_path / "text")
    assert not FORMAT.is_export(tmp_path)


def test_fields_that_cannot_be_stored_are_refused():
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Odd(Node):
        table: dict[str, int] = field(default_factory=dict)

    with pytest.raises(NetworkError, match=r"odd \(odd\): cannot store table, a dict"):
        encode_node(Odd(name="odd"))


def test_an_image_of_another_size_runs_where_parameters_are_per_channel(tmp_path):
    found = mixed_network()
    path = write(found, tmp_path)
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(path), read_network(path), image(3, 4, 6), spikes.__setitem__)
    expected = run(found, image(3, 4, 6), precision="float64", count=False)
    assert np.array_equal(output, expected.output)
    assert all(np.array_equal(spikes[name], value) for name, value in expected.spikes.items())
    with pytest.raises(NetworkError, match="image of 3x6; both sides must be positive multiples of 2"):
        run_export(open_export(path), read_network(path), image(3, 3, 6), print)


def test_an_image_of_another_size_is_refused_where_a_threshold_is_per_pixel(tmp_path):
    found = stock_networks()["chain"]
    threshold = np.full((4, 8, 8), 0.15)
    threshold[0, 0, 0] = 0.4
    nodes = tuple(replace(n, threshold=threshold) if n.name == "a.lif" else n for n in found.nodes)
    path = write(replace(found, nodes=nodes), tmp_path, (8, 8))
    run_export(open_export(path), read_network(path), image(3, 8, 8), lambda name, spikes: None)
    with pytest.raises(NetworkError, match=r"a\.lif \(neuron\): constants .* do not fit a value \(4, 4, 8, 12\)"):
        run_export(open_export(path), read_network(path), image(3, 8, 12), lambda name, spikes: None)


def test_single_numbers_keep_every_bit(tmp_path):
    found = stock_networks()["chain"]
    nodes = tuple(replace(n, threshold=np.array(0.1 + 0.2)) if n.kind == "neuron" else n for n in found.nodes)
    back = read_network(write(replace(found, nodes=nodes), tmp_path))
    assert {float(node.threshold) for node in back.neurons} == {0.1 + 0.2}
