"""Networks without spikes as ONNX, not from their layer graph: traced by torch's own exporter, checked against torch.

In: a dual-stage network or a NAFNet, float32, in eval mode. Out: an ONNX file for images of any size, and what ONNX
Runtime found with it. The tracer refuses whatever it would have to freeze, such as the size of the image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from esdnet.command.errors import CheckFailed
from esdnet.networks.dual_stage.rearrange import Clusters
from export.graph.agreement import FLOAT32_MEMBRANE
from export.graph.check_images import plain_images, sample_image

OPSET = 17  # the last that torch 2.3's tracer writes
SIZES = ((64, 96), (45, 30), (130, 70))  # height, width; not the traced one, and two that the network must pad
TRACED = 64  # sides of the image that is traced

Integers = NDArray[np.int64]


def write(model: nn.Module, path: Path) -> onnx.ModelProto:
    """Trace the network and write it; returns what was written. CheckFailed where a number of the traced image would
    hold for all images."""
    sides = {2: "height", 3: "width"}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # most say what was not folded, or that another exporter is to follow
        torch.onnx.utils.export(
            model, (torch.rand(1, 3, TRACED, TRACED),), str(path), opset_version=OPSET,
            input_names=["input"], output_names=["derained"], dynamic_axes={"input": sides, "derained": sides},
        )  # fmt: skip
    frozen = [warning for warning in said if issubclass(warning.category, torch.jit.TracerWarning)]
    if frozen:
        raise CheckFailed(f"tracing: {frozen[0].filename}:{frozen[0].lineno}: {str(frozen[0].message).splitlines()[0]}")
    return onnx.load(path)


def check(written: onnx.ModelProto, model: nn.Module) -> Iterator[str]:
    """Run the file beside torch on pictures, black, white, grey and noise: a line for each.

    A pixel may stand in another cluster only where the two are as good as equal; with the clusters that the file found,
    torch's output is the file's within what float32 can do. CheckFailed where that is not so.
    """
    images = {f"{height}x{width}": sample_image(height, width) for height, width in SIZES} | plain_images(32, 32)
    clusters = [module for module in model.modules() if isinstance(module, Clusters)]
    names = [_outputs_of(written, kind) for kind in ("ArgMax", "TopK")] if clusters else []
    session = _session(written, names)
    for label, image in images.items():
        planes = image[None].astype(np.float32)
        output, *found = session.run(["derained", *names], {"input": planes})
        with _arranged(clusters, found) as seen, torch.inference_mode():
            expected = model(torch.from_numpy(planes)).numpy()
        moved = _moved(clusters[0], seen[0], found[0], found[1], label) if clusters else ""
        largest = float(np.abs(output - expected).max()) if output.shape == expected.shape else np.inf
        if not largest <= FLOAT32_MEMBRANE:
            raise CheckFailed(f"{label}: output differs by {largest:.1e}, promised {FLOAT32_MEMBRANE:g}")
        yield f"{label}: output by {largest:.1e}{moved}"


def _outputs_of(written: onnx.ModelProto, kind: str) -> str:
    """The last output of the only operator of a kind."""
    found = [node.output[-1] for node in written.graph.node if node.op_type == kind]
    if len(found) != 1:
        raise CheckFailed(f"expected one {kind}, that of the clusters, found {len(found)}")
    return found[0]


def _session(written: onnx.ModelProto, integers: list[str]) -> onnxruntime.InferenceSession:
    """One that also gives out these values, int64 (1, pixels)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(written)
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, [1, None]) for name in integers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextmanager
def _arranged(clusters: list[Clusters], found: list[Integers]) -> Iterator[list[Tensor]]:
    """While it is open, pixels stand in the order found, and the features (1, C, H, W) that clusters saw are kept."""
    seen: list[Tensor] = []

    def arrange(module: nn.Module, given: tuple[Tensor], order: Tensor) -> Tensor:
        seen.append(given[0])
        return torch.from_numpy(found[1])

    handles = [module.register_forward_hook(arrange) for module in clusters]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _moved(clusters: Clusters, features: Tensor, labels: Integers, order: Integers, label: str) -> str:
    """How many pixels stand elsewhere than in torch. CheckFailed where a label or the order is wrong."""
    if not np.array_equal(order, np.argsort(labels, axis=1, kind="stable")):
        raise CheckFailed(f"{label}: pixels are not in the order of their clusters")
    pixels = features.flatten(2).transpose(1, 2).double()
    centres = clusters.centres.double()
    scores = F.linear(pixels, centres, -centres @ clusters.mean.double()).numpy()
    lost = scores.max(-1) - np.take_along_axis(scores, labels[..., None], -1)[..., 0]
    if not lost.max() <= FLOAT32_MEMBRANE * max(1.0, float(np.abs(scores).max())):
        raise CheckFailed(
            f"{label}: a pixel is in another cluster than its own, whose score is higher by {lost.max():.1e}"
        )
    moved = int((labels != clusters.label(features.flatten(2).transpose(1, 2)).numpy()).sum())
    return f"; {moved} of {labels.size} pixels in another cluster, as good as equal"
