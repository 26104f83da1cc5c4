from __future__ import annotations

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph import nodes as g
from export.graph.folder import manifest_digest
from export.graph.network import Network, infer_shapes
from export.integer.calibrate import quantize_on_images
from export.integer.network import IntegerNetwork
from export.integer.quantize import quantize
from export.integer.run import run_integer, to_pixels
from export.integer.store import decode_integer, encode_integer, integer_digest
from export.readers.esdnet import lower
from export.targets.loihi.folder import FORMAT, read_integer, write_folder
from export.targets.loihi.netx import find_segments, on_off_pairs, why_not, write_segment
from tests.random_networks import random_network


@pytest.fixture(scope="module")
def integer(tiny_network, photo) -> IntegerNetwork:
    return quantize_on_images(tiny_network, [to_pixels(photo)])


@pytest.fixture(scope="module")
def folder(integer, tmp_path_factory):
    path = tmp_path_factory.mktemp("lava") / "export"
    write_folder(path, integer, 16, 24, {"calibration": "a photo"})
    return path


def test_the_segments_of_esdnet_are_the_inner_layers_of_its_blocks(integer):
    blocks = ["encoder_level1.0", "encoder_level2.0", "encoder_level3.0", "decoder_level3.0", "decoder_level2.0"]
    expected = [(f"{name}.residual.1", f"{name}.residual.3") for name in [*blocks, "decoder_level1.0"]]
    segments = find_segments(integer)
    assert [segment.nodes for segment in segments] == expected
    assert [segment.source for segment in segments] == [
        name.replace("residual.1", "residual.0") for name, _ in expected
    ]


def test_every_other_node_has_a_reason(integer):
    inside = {name for segment in find_segments(integer) for name in segment.nodes}
    reasons = {operation.name: why_not(operation, integer) for operation in integer.operations}
    assert {name for name, reason in reasons.items() if not reason} == inside
    for name, expected in {
        "patch_embed.proj": "multiplies analog values",
        "encoder_level1.0.shortcut.0": "multiplies analog values",
        "encoder_level1.0.residual.4": "its sums are read as numbers",
        "encoder_level1.0.residual.0": "integrates a value of the host",
        "encoder_level1.0.out": "adds values",
        "concat1": "NotImplementedError for concat",
        "up2_1.resize": "NotImplementedError for unpool",
        "time_mean": "NotImplementedError for pool and average",
        "refinement.sa.4": "attention or refinement",
        "derained": "netx gives out spikes",
        "input": "8-bit pixels",
    }.items():
        assert expected in reasons[name], name


def test_the_segments_of_a_spike_driven_network_begin_with_pairs(spike_driven_network):
    integer = quantize(spike_driven_network, {node.name: 4.0 for node in spike_driven_network.nodes})
    segments = find_segments(integer)
    assert [(segment.source, *segment.nodes) for segment in segments] == [
        (f"{block}.residual.0.pair", f"{block}.residual.1", f"{block}.residual.3")
        for block in (
            f"{side}_level{level}.0" for side, levels in (("encoder", "123"), ("decoder", "321")) for level in levels
        )
    ]
    for name, expected in {
        "patch_embed.proj": "multiplies analog values",
        "encoder_level1.0.shortcut.0": "its sums are read as numbers",
        "encoder_level1.0.residual.0.on": "half of an ON/OFF pair: integrates a value of the host",
        "encoder_level1.0.residual.0.pair": "NotImplementedError for concat",
        "encoder_level1.0.attn.gain": "no layer of kind affine",
        "up2_1.resize": "NotImplementedError for unpool",
        "output.0": "multiplies analog values",
    }.items():
        assert expected in why_not(integer.by_name[name], integer), name


def chained(threshold: float | np.ndarray = 0.5, bias: float | np.ndarray = 0.0) -> IntegerNetwork:
    """spikes -> conv -> lif -> conv -> lif -> conv: two layers that are one segment."""
    rng = np.random.default_rng(0)
    nodes: list = [g.Input(name="x"), g.Repeat(name="coding", inputs=("x",))]

    def add(node):
        nodes.append(dataclasses.replace(node, inputs=(nodes[-1].name,)))

    add(g.Neuron(name="first", threshold=np.array(0.5), membrane_decay=0.5))
    for name in "ab":
        add(g.Conv(name=f"conv_{name}", weight=rng.normal(size=(3, 3, 3, 3)), bias=rng.normal(size=3), padding=(1, 1)))
        constants = {"threshold": np.asarray(threshold), "bias": np.asarray(bias)} if name == "b" else {}
        add(g.Neuron(**{"name": f"lif_{name}", "threshold": np.array(0.7), "membrane_decay": 0.5, **constants}))
    add(g.Conv(name="last", weight=rng.normal(size=(3, 3, 1, 1))))
    add(g.Reduce(name="mean", axes="T"))
    nodes.append(g.Add(name="restored", inputs=("mean", "x")))
    add(g.Output(name="y"))
    network = Network(name="chained", nodes=tuple(nodes), steps=3)
    return quantize(network, dict.fromkeys((node.name for node in nodes), 1.0))


def test_layers_in_a_row_are_one_segment_with_two_layers():
    (segment,) = find_segments(chained())
    assert segment.nodes == ("conv_a", "lif_a", "conv_b", "lif_b")
    assert (segment.source, segment.target) == ("first", "lif_b")


@pytest.mark.parametrize(
    ("constants", "reason"),
    [
        ({"threshold": np.array([0.5, 0.6, 0.7])[:, None, None]}, "has a threshold per channel; a netx layer has one"),
        ({"bias": np.zeros((3, 8, 8)) + 0.1}, "has a bias per pixel; a netx layer has one per channel"),
    ],
)
def test_neurons_that_netx_cannot_express_stay_outside(constants, reason):
    integer = chained(**constants)
    assert [segment.nodes for segment in find_segments(integer)] == [("conv_a", "lif_a")]
    assert why_not(integer.by_name["lif_b"], integer) == reason
    assert why_not(integer.by_name["conv_b"], integer) == "its neuron lif_b does not fit into a netx layer"


def paired(on: float, off: float | None = None) -> IntegerNetwork:
    """spikes -> conv -> one or two neurons with these gains -> conv."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 3, 3, 3))
    gains = {"on": on} if off is None else {"on": on, "off": off}
    lif = {"threshold": np.array(0.5), "membrane_decay": 0.5, "fires": ">"}
    nodes: list = [
        g.Input(name="x"),
        g.Repeat(name="coding", inputs=("x",)),
        g.Neuron(name="first", inputs=("coding",), **lif),
        g.Conv(name="conv", inputs=("first",), weight=weight, bias=np.ones(3), padding=(1, 1)),
        *(g.Neuron(name=name, inputs=("conv",), gain=np.array(gain), **lif) for name, gain in gains.items()),
        *([] if off is None else [g.Concat(name="both", inputs=("on", "off"))]),
    ]
    joined = np.concatenate([weight] * len(gains), axis=1)
    nodes.append(g.Conv(name="last", inputs=(nodes[-1].name,), weight=joined, padding=(1, 1)))
    nodes.append(g.Reduce(name="mean", inputs=("last",), axes="T"))
    nodes += [g.Add(name="restored", inputs=("mean", "x")), g.Output(name="y", inputs=("restored",))]
    network = Network(name="paired", nodes=tuple(nodes), steps=3)
    return quantize(network, dict.fromkeys((node.name for node in nodes), 1.0))


@pytest.mark.parametrize(
    ("gains", "pairs", "conv_reason", "neuron_reason"),
    [
        ((1.0,), [], "", ""),
        ((-1.0,), [], "its neuron on does not fit into a netx layer",
         "has a gain; a netx neuron adds its synapses as they are"),
        ((1.0, -1.0), [("on", "off")], "2 neurons read its sums; a netx layer has one neuron",
         "half of an ON/OFF pair: shares the sums of conv; a netx layer has one neuron"),
        ((1.0, 1.0), [], "2 neurons read its sums; a netx layer has one neuron",
         "shares the sums of conv; a netx layer has one neuron"),
    ],
)  # fmt: skip
def test_pairs_of_neurons_on_one_convolution(gains, pairs, conv_reason, neuron_reason):
    integer = paired(*gains)
    assert on_off_pairs(integer.network) == pairs
    assert why_not(integer.by_name["conv"], integer) == conv_reason
    assert why_not(integer.by_name["on"], integer) == neuron_reason
    assert [segment.nodes for segment in find_segments(integer)] == ([] if conv_reason else [("conv", "on")])


def test_the_manifest_counts_the_pairs(tmp_path):
    integer = paired(1.0, -1.0)
    write_folder(tmp_path / "out", integer, 8, 8, {})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["on_off_pairs"] == [["on", "off"]]
    assert manifest["not_in_netx"]["off"].startswith("half of an ON/OFF pair")
    assert integer_digest(read_integer(tmp_path / "out")) == integer_digest(integer)


@pytest.mark.parametrize("polarity", ["on", "on_off"])
def test_an_on_off_encoder_of_a_stream_is_named_and_a_joined_input_begins_a_segment(polarity):
    """ON/OFF neurons on the residual stream stay on the host; conv and neuron after their Concat are a segment."""
    torch.manual_seed(0)
    config = dataclasses.replace(preset("tiny"), polarity=polarity)
    network = lower(ESDNet(config).eval())
    integer = quantize(network, dict.fromkeys((node.name for node in network.nodes), 1.0))
    segments = find_segments(integer)
    assert len(segments) == 6
    for segment in segments:
        if polarity == "on":
            assert isinstance(network[segment.source], g.Neuron)
        else:
            assert isinstance(network[segment.source], g.Concat)
            for name in network[segment.source].inputs:
                assert why_not(integer.by_name[name], integer).startswith("half of an ON/OFF pair: integrates a value")
    assert len(on_off_pairs(network)) * 2 == (len(network.neurons) - 6 if polarity == "on_off" else 0)


def test_the_hdf5_file_has_the_fields_that_netx_reads(tmp_path):
    integer = chained()
    (segment,) = find_segments(integer)
    write_segment(tmp_path / "a.h5", segment, infer_shapes(integer.network, 8, 10))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert list(file["layer"]) == ["0", "1"]
        layer, conv, neuron = file["layer/1"], integer.by_name["conv_b"], integer.by_name["lif_b"]
        assert layer["type"][0] == b"conv"
        assert list(layer["shape"]) == [3, 8, 10]
        assert (layer["inChannels"][()], layer["outChannels"][()], layer["groups"][()]) == (3, 3, 1)
        for key, value in {"kernelSize": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}.items():
            assert list(layer[key]) == value
        assert np.array_equal(layer["weight"], conv.weight)
        assert np.array_equal(layer["bias"], neuron.bias.reshape(-1))
        cuba = {key: value[()] for key, value in layer["neuron"].items() if key != "type"}
        assert cuba == {
            "iDecay": 4096,
            "vDecay": 2048,
            "vThMant": int(neuron.threshold),
            "refDelay": 1,
            "gradedSpike": False,
        }
        assert layer["neuron/type"][0] == b"CUBA"


@pytest.mark.parametrize("seed", [0, 1])
def test_integer_networks_survive_as_data(seed):
    network = random_network(seed)
    integer = quantize(network, dict.fromkeys((node.name for node in network.nodes), 0.7))
    record, arrays = encode_integer(integer)
    again = decode_integer(json.loads(json.dumps(record)), arrays)
    assert integer_digest(again) == integer_digest(integer)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    assert np.array_equal(run_integer(again, pixels), run_integer(integer, pixels))


def test_the_folder_reads_back_and_its_manifest_orders_everything(folder, integer):
    assert FORMAT.is_export(folder)
    assert integer_digest(read_integer(folder)) == integer_digest(integer)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["input_shape"] == [3, 16, 24]
    assert manifest["calibration"] == "a photo"
    done: set[str] = set()
    for step in manifest["steps"]:
        names = [step["host"]] if "host" in step else step["nodes"]
        for name in names:
            assert set(integer.by_name[name].node.inputs) <= done, name
            done.add(name)
        assert ("segment" in step) == (names[0] not in manifest["not_in_netx"])
    assert done == set(integer.by_name)
    files = {step["segment"] for step in manifest["steps"] if "segment" in step}
    assert files | {"constants.npz"} == set(manifest["files"])


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def first_segment(folder):
    return sorted(folder.glob("*.h5"))[0]


def test_a_segment_of_another_export_is_named(copy):
    other = quantize(random_network(0), None)
    segment = find_segments(other)[0]
    target = first_segment(copy)
    target.unlink()
    write_segment(target, segment, infer_shapes(other.network, 16, 24))
    with pytest.raises(UserError, match=rf"{target.name}: was changed or cut short after it was written"):
        read_integer(copy)


def test_damaged_exports_are_refused_in_one_line(copy):
    first_segment(copy).unlink()
    with pytest.raises(UserError, match=r"00_encoder.*h5: missing, the export is incomplete; write it again with"):
        read_integer(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "network": {**manifest["network"], "steps": 5}}))
    with pytest.raises(UserError, match=r"manifest.json: was changed after it was written"):
        read_integer(copy)
    for content, message in (
        ("{", "cannot be read as a Lava-DL export"),
        ('{"format": "other"}', "expected format 'esdnet-lava-dl'"),
        (json.dumps({**manifest, "version": 9}), "format 9, this program reads 2; update the program"),
    ):
        (copy / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=message):
            read_integer(copy)
    (copy / "manifest.json").unlink()
    assert not FORMAT.is_export(copy)
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        read_integer(copy)


def test_a_manifest_that_contradicts_its_constants(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["operations"][2]["node"]["name"] = "other"
    del manifest["sha256"]
    manifest["sha256"] = manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"cannot be read as a Lava-DL export of ESDNet: .*other/"):
        read_integer(copy)


def test_an_operation_of_a_newer_program(integer):
    record, arrays = encode_integer(integer)
    record["operations"][3]["operation"] = "IntegerFuture"
    with pytest.raises(UserError, match="unknown operation 'IntegerFuture'; a newer program wrote this export"):
        decode_integer(record, arrays)
