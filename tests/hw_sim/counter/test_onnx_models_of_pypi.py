"""Small networks that packages of PyPI ship: nothing unknown, results those of the whole model.

pip install --no-deps silero-vad magika rapidocr-onnxruntime nudenet
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hw_sim.counter.onnx_counter import count_onnx
from tests.hw_sim.counter.test_onnx_counter import equal, plain

RNG = np.random.default_rng(0)
VOICE = [RNG.normal(size=(1, 512)).astype(np.float32), np.zeros((2, 1, 128), np.float32), np.array(16000)]
MODELS = {  # file in its package, inputs in the model's order, MACs
    "magika/models/standard_v3_3/model.onnx": ([RNG.integers(0, 256, (1, 2048)).astype(np.int32)], 366_717_952),
    "nudenet/320n.onnx": ([RNG.random((1, 3, 320, 320)).astype(np.float32)], 970_384_688),
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": (
        [RNG.random((1, 3, 320, 320)).astype(np.float32)], 567_448_736,
    ),
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": (
        [RNG.random((1, 3, 48, 320)).astype(np.float32)], 695_962_896,
    ),
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": (
        [RNG.random((1, 3, 48, 192)).astype(np.float32)], 14_088_728,
    ),
    "silero_vad/data/silero_vad.onnx": (VOICE, 494_080),
    "silero_vad/data/silero_vad_16k_op15.onnx": (VOICE, 494_080),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_unknown(name):
    package, _, inside = name.partition("/")
    found = find_spec(package)
    if found is None or found.submodule_search_locations is None:
        pytest.skip(f"{package} is not installed")
    path = Path(next(iter(found.submodule_search_locations))) / inside
    if not path.is_file():
        pytest.skip(f"this version of {package} has no {inside}")
    feeds, macs = MODELS[name]
    report = count_onnx(path, feeds, strict=True)
    assert equal(list(report.output.values()), plain(path, feeds))
    assert report.totals["macs"] == macs
    assert report.totals["acs"] == report.totals["spikes"] == 0
