"""ONNX models, node by node: results those of the whole model, counts those of torch, of the graph, and by hand."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnx.backend.test
from onnx import helper, numpy_helper

import hw_sim
from esdnet.command.errors import UserError
from export.graph.nodes import Conv, Linear, Neuron
from export.targets.onnx.write import to_model
from hw_sim.backends import simulator
from hw_sim.backends.executors import load_source
from hw_sim.counter.onnx_counter import count_onnx
from hw_sim.counter.onnx_nodes import open_session

DATA = Path(onnx.backend.test.__file__).parent / "data"
SAME = ("acs", "macs", "nonzero_macs", "spikes", "dense_taps")


def save(path: Path, nodes, inputs, outputs, constants=(), opset=18) -> Path:
    """A model of these nodes; inputs and outputs: name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def plain(path: Path, feeds) -> list:
    """Outputs of the whole model, its optimisations off."""
    session = open_session(str(path))
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, feeds, strict=True)))


def equal(found, expected) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if expected is None:
        return found is None
    found, expected = np.asarray(found), np.asarray(expected)
    return found.shape == expected.shape and np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")


FLOAT = onnx.TensorProto.FLOAT


@pytest.mark.parametrize("checkpoint", ["small_released", "small_spike_driven"])
def test_shipped_networks_module_file_and_graph_agree_layer_by_layer(tmp_path, checkpoint):
    source = load_source(checkpoint, None)
    image = np.random.default_rng(0).random((3, 32, 24)).astype(np.float32)
    path = tmp_path / "network.onnx"
    onnx.save(to_model(source.network), path)
    report = count_onnx(path, [image[None]], strict=True)
    assert equal(next(iter(report.output.values())), plain(path, [image[None]])[0])
    simulated = simulator.run(source.network, image, precision="float32")
    names = sorted((node.name for node in source.network.nodes), key=len, reverse=True)
    found: dict[str, Counter] = {}
    for layer in report.layers:
        owner = next(
            (name for name in names if layer.name == name or layer.name.startswith((f"{name}/", f"{name}:"))), ""
        )
        found.setdefault(owner, Counter()).update({count: layer.counts[count] for count in SAME})
    for node in source.network.nodes:
        if isinstance(node, (Conv, Linear, Neuron)):
            totals = simulated.counts[node.name].totals()
            assert {count: found[node.name][count] for count in SAME} == {count: totals[count] for count in SAME}
    assert report.totals["spikes"] > 0
    module = hw_sim.count(source.model.float().eval(), torch.from_numpy(image)[None])
    expected = {count: sum(c.totals()[count] for c in simulated.counts.values()) for count in SAME}
    assert {count: report.totals[count] for count in SAME} == expected
    assert module.totals["macs"] == report.totals["macs"]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(2, 4, 3, padding=1), snntorch.Leaky(beta=0.9)
        self.fc, self.lif2 = nn.Linear(64, 8), snntorch.RLeaky(beta=0.8, linear_features=8)
        self.out, self.lif3 = nn.Linear(8, 3), snntorch.Synaptic(alpha=0.9, beta=0.8, reset_mechanism="zero")

    def forward(self, x):
        mem1, (spk2, mem2), (syn3, mem3) = self.lif1.init_leaky(), self.lif2.init_rleaky(), self.lif3.init_synaptic()
        out = []
        for frame in x:
            spk1, mem1 = self.lif1(self.conv(frame), mem1)
            spk2, mem2 = self.lif2(self.fc(F.max_pool2d(spk1, 2).flatten(1)), spk2, mem2)
            spk3, syn3, mem3 = self.lif3(self.out(spk2), syn3, mem3)
            out.append(spk3)
        return torch.stack(out)


def trace(model: nn.Module, x, path: Path, **how) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, x, str(path), **how)
    return path


def test_a_traced_snntorch_network_counts_as_spikes(tmp_path):
    torch.manual_seed(0)
    model, x = Recurrent().eval(), 3 * torch.rand(6, 2, 2, 8, 8)
    with torch.no_grad():
        model.fc.weight.abs_()
        model.out.weight.abs_()
    path = trace(model, x, tmp_path / "snn.onnx")
    module, file = hw_sim.count(model, x, strict=True), count_onnx(path, [x.numpy()], strict=True)
    assert equal(next(iter(file.output.values())), plain(path, [x.numpy()])[0])
    kept = ("acs", "macs", "nonzero_macs", "spikes", "events_in")
    assert {count: file.totals[count] for count in kept} == {count: module.totals[count] for count in kept}

    def acs(report):
        return {layer.name: layer.counts["acs"] for layer in report.layers if layer.counts["acs"]}

    assert acs(file) == acs(module)
    assert set(acs(file)) == {"fc", "lif2.recurrent", "out"}
    assert {layer.name for layer in file.layers if layer.counts["spikes"]} == {"lif1", "lif2", "lif3"}


def test_a_transformer_and_an_lstm_as_torch_counts_them(tmp_path):
    torch.manual_seed(0)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.lstm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LSTM(8, 6)
            self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 3)

        def forward(self, x):
            y = self.attn(x, x, x, need_weights=False)[0].transpose(0, 1)
            return self.fc(F.gelu(self.norm(self.lstm(y)[0])))

    model, x = Both(), torch.rand(2, 5, 8)
    path = trace(model, x, tmp_path / "both.onnx", opset_version=17)
    module, file = hw_sim.count(model, x, strict=True), count_onnx(path, [x.numpy()], strict=True)
    assert file.totals["macs"] == module.totals["macs"] == 2 * 5 * (8 * 24 + 5 * 8 * 2 + 64 + 24 * 8 + 24 * 6 + 18)


MACS = {  # counted by hand below, and written down
    "light_densenet121": 2_778_262_272,
    "light_inception_v1": 1_359_066_112,
    "light_inception_v2": 1_916_361_472,
    "light_resnet50": 3_948_251_904,
    "light_shufflenet": 123_996_800,
    "light_squeezenet": 337_404_608,
}
OTHERS = ["light_bvlc_alexnet", "light_vgg19", "light_zfnet512"]


def macs_by_hand(path: Path) -> int:
    """From inferred shapes alone: valid taps of each axis by convolving ones, and matrices as they are."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    known = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in known}
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            read, weight = shapes[node.input[0]], shapes[node.input[1]]
            taps = 1
            for axis, (size, kernel) in enumerate(zip(read[2:], weight[2:], strict=True)):
                pads = attributes.get("pads", [0, 0, 0, 0])
                ones = F.pad(torch.ones(1, 1, size), (pads[axis], pads[axis + 2]))
                stride = attributes.get("strides", [1, 1])[axis]
                taps *= int(F.conv1d(ones, torch.ones(1, 1, kernel), stride=stride).sum())
            total += taps * weight[0] * weight[1]
        elif node.op_type == "Gemm":
            weight = shapes[node.input[1]]
            total += weight[0] * weight[1]
    return total


LARGE = {*OTHERS, "light_densenet121", "light_inception_v2", "light_resnet50"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in (*MACS, *OTHERS)]
)
def test_light_cnns_of_the_onnx_package(name):
    path = DATA / "light" / f"{name}.onnx"
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    feeds = []
    for value in model.graph.input:
        if value.name not in constants:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            feeds.append((np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32))
    report = count_onnx(path, feeds, strict=True)
    recorded = numpy_helper.to_array(onnx.load_tensor(str(DATA / "light" / f"{name}_output_0.pb")))
    found = next(iter(report.output.values()))
    np.testing.assert_allclose(found, recorded, rtol=1e-3, atol=1e-7)  # as onnx's own runner compares them
    assert equal(found, plain(path, feeds)[0])
    assert report.totals["macs"] == MACS.get(name, report.totals["macs"]) == macs_by_hand(path)
    assert report.totals["acs"] == report.totals["spikes"] == 0


def recorded_models() -> list[Path]:
    return sorted(path.parent for path in DATA.glob("pytorch-*/*/model.onnx"))


@pytest.mark.parametrize("folder", recorded_models(), ids=lambda folder: folder.name)
def test_one_operator_models_of_the_onnx_package(folder, tmp_path):
    path = folder / "model.onnx"
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    data = folder / "test_data_set_0"
    feeds = [numpy_helper.to_array(onnx.load_tensor(str(data / f"input_{i}.pb"))) for i in range(len(inputs))]
    try:
        expected = plain(path, feeds)
    except Exception:  # operators of 2017, for which ONNX Runtime has no kernels: as onnx itself brings them up to date
        path = tmp_path / "model.onnx"
        onnx.save(onnx.version_converter.convert_version(model, 13), path)
        if "PReLU" in folder.name and "multiparam" in folder.name:
            pytest.skip("slopes of opset 6 stand along the channels, those of today along the last axis")
        expected = plain(path, feeds)
    report = count_onnx(path, feeds, strict=True)
    assert equal(list(report.output.values()), expected)
    for index, found in enumerate(report.output.values()):
        recorded = numpy_helper.to_array(onnx.load_tensor(str(data / f"output_{index}.pb")))
        np.testing.assert_allclose(found, recorded, rtol=1e-3, atol=1e-7)


def test_the_bodies_of_loops_are_counted_turn_by_turn(tmp_path):
    """state = (W state + x > 1) as float, three times from zeros: spikes fed back, seen in each turn."""
    weight = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weight"], ["driven"], name="lif/back"),
            helper.make_node("Add", ["driven", "x"], ["membrane"], name="lif/add"),
            helper.make_node("Greater", ["membrane", "threshold"], ["fired"], name="lif/fire"),
            helper.make_node("Cast", ["fired"], ["next"], name="lif/cast", to=FLOAT),
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Identity", ["next"], ["kept"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [2, 4]),
        ],
        [
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [2, 4]),
            helper.make_tensor_value_info("kept", FLOAT, [2, 4]),
        ],
    )
    path = save(
        tmp_path / "loop.onnx",
        [helper.make_node("Loop", ["turns", "", "start"], ["last", "all"], body=body)],
        {"x": (FLOAT, [2, 4])},
        {"last": (FLOAT, [2, 4]), "all": (FLOAT, [None, 2, 4])},
        {"turns": np.int64(3), "start": np.zeros((2, 4), np.float32), "weight": weight, "threshold": np.float32(0.3)},
    )
    x = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    state, read, spikes = np.zeros((2, 4), np.float32), 0, 0
    for _ in range(3):
        read += int(state.sum())
        state = (state @ weight + x > np.float32(0.3)).astype(np.float32)
        spikes += int(state.sum())
    assert read > 0
    report = count_onnx(path, [x], strict=True)
    assert all(map(equal, report.output.values(), plain(path, [x])))
    assert (report.totals["acs"], report.totals["macs"], report.totals["spikes"]) == (4 * read, 0, spikes)


@pytest.mark.parametrize("positive", [True, False])
def test_only_the_branch_that_runs_is_counted(tmp_path, positive):
    def branch(width: int):
        made = helper.make_tensor_value_info("y", FLOAT, [2, None])
        return helper.make_graph([helper.make_node("MatMul", ["x", f"w{width}"], ["y"])], "branch", [], [made])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["holds"]),
        helper.make_node("If", ["holds"], ["out"], then_branch=branch(5), else_branch=branch(7)),
    ]
    constants = {"w5": np.ones((4, 5), np.float32), "w7": np.ones((4, 7), np.float32), "zero": np.float32(0)}
    path = save(tmp_path / "if.onnx", nodes, {"x": (FLOAT, [2, 4])}, {"out": (FLOAT, [2, None])}, constants)
    x = np.full((2, 4), 1 if positive else -1, np.float32)
    report = count_onnx(path, [x], strict=True)
    assert report.totals["macs"] == 2 * 4 * (5 if positive else 7)
    assert equal(report.output["out"], plain(path, [x])[0])


def test_dynamic_sizes_take_those_of_the_input(tmp_path):
    model = nn.Conv2d(1, 2, 3, padding=1)
    path = trace(
        model, torch.rand(1, 1, 8, 8), tmp_path / "conv.onnx", input_names=["x"], dynamic_axes={"x": [0, 2, 3]}
    )
    x = np.random.default_rng(0).random((2, 1, 6, 9)).astype(np.float32)
    assert count_onnx(path, {"x": x}).totals["macs"] == 2 * 2 * (3 * 6 - 2) * (3 * 9 - 2)


def test_an_image_of_zeros_and_ones_is_multiplied_unless_it_is_said_to_be_spikes(tmp_path):
    path = trace(nn.Conv2d(1, 2, 3), torch.rand(1, 1, 5, 5), tmp_path / "conv.onnx", input_names=["x"])
    image = (np.random.default_rng(0).random((1, 1, 5, 5)) > 0.5).astype(np.float32)
    analog, spikes = count_onnx(path, [image]), count_onnx(path, [image], {"x": "spike"})
    assert (analog.totals["acs"], analog.totals["macs"]) == (0, 9 * 9 * 2)
    assert (spikes.totals["acs"], spikes.totals["macs"]) == (analog.totals["nonzero_macs"], 0)


def test_unknown_operators_are_listed_or_refused(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["y"])]
    path = save(tmp_path / "det.onnx", nodes, {"x": (FLOAT, [3, 2, 2])}, {"y": (FLOAT, [3])})
    x = np.random.default_rng(0).random((3, 2, 2)).astype(np.float32)
    report = count_onnx(path, [x])
    assert report.unknown == {"Det": 3}
    assert "NOT COUNTED, no rule: Det (3 values)." in report.table()
    with pytest.raises(UserError, match=r"no rule for Det \(3 values\)"):
        count_onnx(path, [x], strict=True)


@pytest.mark.parametrize(
    ("inputs", "kinds", "message"),
    [
        ([], None, "0 inputs given, expected 1: x"),
        ({"y": np.zeros((2, 4))}, None, "inputs y given, expected x"),
        ([np.zeros((2, 5))], None, r"input x has shape \(2, 5\), expected \?x4"),
        ([np.array([["a"] * 4])], None, "input x is of <U1, expected float32"),
        ([np.full((2, 4), 0.5)], {"x": "spike"}, "declared spike, but holds values other than 0 and 1"),
        ([np.full((2, 4), 0.5)], {"x": "graded"}, "declared graded, but holds values other than whole numbers"),
        ([np.zeros((2, 4))], {"x": "binary"}, "said to be 'binary', expected spike, graded or analog"),
        ([np.zeros((2, 4))], {"z": "spike"}, "input_kinds names 'z', expected one of x"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, inputs, kinds, message):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants = {"w": np.ones((4, 3), np.float32)}
    path = save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [None, 4])}, {"y": (FLOAT, [None, 3])}, constants)
    with pytest.raises(UserError, match=message):
        count_onnx(path, inputs, kinds)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be read as an ONNX model"):
        count_onnx(tmp_path / "no.onnx", [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_operator_case_that_the_onnx_package_makes(tmp_path):
    """About 1,900 models of one operator; ONNX Runtime runs two thirds. The same bits, or refused in one line."""
    from onnx.backend.test.case.node import collect_testcases

    ran, refused = 0, []
    for case in collect_testcases(None):
        path, (inputs, _) = tmp_path / "case.onnx", case.data_sets[0]
        onnx.save(case.model, path)
        try:
            expected = plain(path, inputs)
        except Exception:
            continue
        try:
            report = count_onnx(path, inputs)
        except UserError as error:
            refused.append(str(error))
            continue
        assert equal(list(report.output.values()), expected), case.name
        ran += 1
    assert ran > 1000
    assert all("is no tensor" in message or "Scan of opset 8" in message for message in refused)
