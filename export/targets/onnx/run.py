"""ONNX models on ONNX Runtime's CPU kernels.

In: a model as export/targets/onnx/write.py writes it, and an image of any size, or values layer by layer. Out: the
image and every neuron's spikes, or the values found from those given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.graph.frames import check_image, check_sequence, output_of
from export.graph.network import Network
from export.graph.witness import Values
from export.targets.onnx.graph import Precision
from export.targets.onnx.step import AFTER, BEFORE, first_states, to_step_model
from export.targets.onnx.write import GIVEN, exposed, opened

Floats = NDArray[np.floating[Any]]


def run_image(model: onnx.ModelProto, network: Network, image: Floats) -> tuple[Floats, dict[str, NDArray[np.bool_]]]:
    """Output, (C, H, W) or all frames (T, C, H, W), and the spikes of every neuron, bool (T, C, H, W), of one image.

    image: floats (3, H, W) in [0, 1].
    """
    check_image(network, image)
    names = [node.name for node in network.neurons]
    found = execute(exposed(model, names), {network.input.name: image[None]})
    return output_of(found[network.output.name]), {name: found[name] > 0.5 for name in names}


def run_layers(model: onnx.ModelProto, network: Network, given: Values) -> dict[str, Floats]:
    """The values of these names, each computed from the values given; sides of the image as the network needs them."""
    names = [name for name in given if name not in (network.input.name, network.output.name)]
    feeds = {name + GIVEN: given[name] for name in names}
    return execute(opened(model, names), {network.input.name: given[network.input.name], **feeds})


def run_sequence(
    network: Network, frames: NDArray[Any], precision: Precision = "float64"
) -> tuple[dict[str, Floats], dict[str, NDArray[np.bool_]]]:
    """Every output and the spikes of every neuron, (T, C, H, W), of an input for every step, by the model of one step.

    frames: as the network's Input states them.
    """
    return run_steps(to_step_model(network, precision), network, frames)


def run_steps(
    model: onnx.ModelProto, network: Network, frames: NDArray[Any]
) -> tuple[dict[str, Floats], dict[str, NDArray[np.bool_]]]:
    """The same with a model of one step that is there."""
    frames = check_sequence(network, frames)
    steps = len(frames) if network.input.every_step else network.steps
    names = [node.name for node in (*network.outputs, *network.neurons)]
    session, dtype = _open(exposed(model, names))
    results = [output.name for output in session.get_outputs()]
    states = {name: np.ascontiguousarray(value, dtype) for name, value in first_states(model).items()}
    found: dict[str, list[Floats]] = {name: [] for name in names}
    for step in range(steps):
        frame = frames[min(step, len(frames) - 1)][None].astype(dtype)
        values = dict(zip(results, session.run(None, {network.input.name: frame, **states}), strict=True))
        states = {name: values[name.removesuffix(BEFORE) + AFTER] for name in states}
        for name in names:
            found[name].append(values[name])
    stacked = {name: np.concatenate(parts) for name, parts in found.items()}
    outputs = {node.name: stacked[node.name] for node in network.outputs}
    return outputs, {node.name: stacked[node.name] > 0.5 for node in network.neurons}


def execute(model: onnx.ModelProto, feeds: dict[str, Floats]) -> dict[str, Floats]:
    """All outputs of a model by name; the inputs are cast to its precision."""
    session, dtype = _open(model)
    results = session.run(None, {name: np.ascontiguousarray(value, dtype) for name, value in feeds.items()})
    return dict(zip([output.name for output in session.get_outputs()], results, strict=True))


def _open(model: onnx.ModelProto) -> tuple[onnxruntime.InferenceSession, np.dtype[Any]]:
    """A session, and the type of its numbers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; not that a copy cut open has operators without effect
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    element = model.graph.input[0].type.tensor_type.elem_type
    return session, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))
