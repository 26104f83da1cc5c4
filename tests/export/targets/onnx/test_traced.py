"""Networks without a layer graph as ONNX: the file is torch's network at any size, what is wrong in it is found."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from esdnet.command.errors import CheckFailed
from esdnet.networks.architectures import preset
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.dual_stage.model import DualStage
from export.targets.onnx import traced as onnx_traced
from export.to_onnx import main
from tests.conftest import as_if_learnt
from tests.tolerances import FLOAT32_MEMBRANE


@pytest.fixture
def dual_stage(dual_stage_model: DualStage) -> DualStage:
    return dual_stage_model


@pytest.fixture(scope="module")
def file(dual_stage_model: DualStage, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The dual-stage network's file; each test reads a copy."""
    path = tmp_path_factory.mktemp("onnx") / "dual.onnx"
    onnx_traced.write(dual_stage_model, path)
    return path.read_bytes()


@pytest.mark.parametrize("name", [pytest.param("tiny_dual_stage", marks=pytest.mark.slow), "tiny_nafnet"])
def test_a_checkpoint_becomes_a_checked_file(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("a.pt", as_if_learnt(preset(name)))
    assert main(["a.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"ONNX opset 17, float32, [\d,]+ operators", lines[0])
    assert len(lines) == 9
    for line in lines[1:8]:
        assert re.search(r"output by [\d.e-]+(; 0 of \d+ pixels in another cluster, as good as equal)?$", line)
        assert ("cluster" in line) == (name == "tiny_dual_stage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (100, 36)])
def test_the_file_is_the_network_at_any_size(size: tuple[int, int], dual_stage: DualStage, file: bytes) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(["derained"], {"input": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, dual_stage(image).numpy(), rtol=0, atol=FLOAT32_MEMBRANE)


def centres_of(model: onnx.ModelProto, dual_stage: DualStage) -> tuple[onnx.TensorProto, np.ndarray]:
    """The constant of a file that holds the centres of the clusters, and its values (channels, clusters)."""
    expected = dual_stage.stage2.bottleneck.arrange.centres.T.numpy()
    for constant in model.graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.shape == expected.shape and np.array_equal(values, expected):
            return constant, values.copy()
    raise AssertionError("the centres are not in the file")


def swap_centres(model: onnx.ModelProto, dual_stage: DualStage) -> None:
    constant, values = centres_of(model, dual_stage)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=1), constant.name))


def sort_backwards(model: onnx.ModelProto, dual_stage: DualStage) -> None:
    [sort] = [node for node in model.graph.node if node.op_type == "TopK"]
    [largest] = [attribute for attribute in sort.attribute if attribute.name == "largest"]
    largest.i = 1


def change_a_weight(model: onnx.ModelProto, dual_stage: DualStage) -> None:
    [constant] = [constant for constant in model.graph.initializer if constant.name == "stage2.output.weight"]
    values = onnx.numpy_helper.to_array(constant).copy()
    values.flat[np.abs(values).argmax()] += 0.001
    constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))


DAMAGES = {
    change_a_weight: r"64x96: output differs by \d\.\de-0\d, promised 1e-05",
    swap_centres: r"64x96: a pixel is in another cluster than its own, whose score is higher by ",
    sort_backwards: r"64x96: pixels are not in the order of their clusters",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_wrong_in_the_file_is_found_and_nothing_is_left(
    damage, dual_stage: DualStage, file: bytes, tmp_path: Path, capsys, monkeypatch
) -> None:
    def write_damaged(model: nn.Module, path: Path) -> onnx.ModelProto:
        written = onnx.load_from_string(file)
        damage(written, dual_stage)
        path.write_bytes(written.SerializeToString())
        return written

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_traced, "write", write_damaged)
    save_checkpoint("a.pt", dual_stage)
    assert main(["a.pt"]) == 1
    assert re.search("check failed, nothing was written: " + DAMAGES[damage], capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.slow
def test_a_pixel_between_two_clusters_may_go_to_either(dual_stage: DualStage, tmp_path: Path) -> None:
    """Two centres are the same; in the file the second is a millionth longer, and wins where torch takes the first."""
    network = deepcopy(dual_stage)
    clusters = network.stage2.bottleneck.arrange
    clusters.mean.zero_()
    clusters.centres[1] = clusters.centres[0]
    clusters.centres[2:] = -clusters.centres[0]
    written = onnx_traced.write(network, tmp_path / "a.onnx")
    constant, values = centres_of(written, network)
    values[:, 1] *= 1 + 1e-6
    constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    lines = list(onnx_traced.check(written, network))
    moved = [int(re.search(r"; (\d+) of", line)[1]) for line in lines]
    assert sum(moved) > 0


def test_a_network_that_decides_by_its_image_is_not_traced(tmp_path: Path) -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CheckFailed, match=r"tracing: .*test_traced.*Converting a tensor to a Python boolean"):
        onnx_traced.write(Deciding(), tmp_path / "a.onnx")


def test_double_precision_is_refused(dual_stage: DualStage, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("a.pt", dual_stage)
    assert main(["a.pt", "--precision", "float64"]) == 2
    assert "--precision float64: a.pt is no ESDNet, expected float32" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
