from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from export.graph import nodes as g
from export.graph.execute import execute_node
from export.graph.network import Network
from export.graph.nodes import NetworkError, ValueKind
from export.integer import operations as ops
from export.integer.bias_correction import correct_biases
from export.integer.calibrate import calibration_images, centre_pixels, measure, quantize_on_images
from export.integer.formats import Formats, QuantizationError
from export.integer.network import largest_sum
from export.integer.operations import Format
from export.integer.quantize import (
    _threshold,
    align_step,
    quantize,
    quantize_node,
    rescale_by,
    round_weight,
    weight_steps,
)
from export.integer.run import execute, run_integer, to_pixels
from export.integer.store import integer_digest
from hw_sim.backends import simulator
from tests.random_networks import random_network


def chain(*nodes: g.Node, restored: bool = False, steps: int = 4) -> Network:
    """Input 'x' repeated, the nodes one after the other; `restored`: their mean over the steps plus the image."""
    linked: list[g.Node] = [g.Input(name="x"), g.Repeat(name="coding", inputs=("x",))]
    for node in (*nodes, *([g.Reduce(name="mean", axes="T")] if restored else [])):
        linked.append(dataclasses.replace(node, inputs=(linked[-1].name,)))
    if restored:
        linked.append(g.Add(name="sum", inputs=("mean", "x")))
    return Network(name="chain", nodes=(*linked, g.Output(name="y", inputs=(linked[-1].name,))), steps=steps)


def conv(name: str, weight: np.ndarray, **fields) -> g.Conv:
    return g.Conv(name=name, weight=weight, padding=(weight.shape[2] // 2,) * 2, **fields)


def neuron(name: str, threshold: float = 0.5, **fields) -> g.Neuron:
    return g.Neuron(name=name, threshold=np.array(threshold), membrane_decay=0.5, **fields)


def spiking_layer(fires: str) -> Network:
    """spikes -> conv of dyadic weights -> neuron of a dyadic threshold and bias."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-127, 128, (6, 3, 3, 3)) / 128
    bias = rng.integers(-40, 41, 6) / 128
    first = neuron("first", 0.25)
    return chain(
        first,
        conv("conv", weight, bias=bias),
        neuron("second", 93 / 128, fires=fires),
        conv("out", weight[:3, :1].repeat(6, 1)),
    )


@pytest.mark.parametrize(("fires", "exact_steps"), [(">", 4), (">=", 1)])
def test_dyadic_weights_are_kept_and_the_layer_equals_float64(fires, exact_steps):
    """Weights k/128: the step is 2^-7, nothing is rounded. '>=' becomes '> threshold - 1', exact while v is whole."""
    network = spiking_layer(fires)
    operations = {op.name: op for op in quantize_layers(network)}
    layer, second = operations["conv"], operations["second"]
    assert isinstance(layer, ops.IntegerConv)
    assert np.array_equal(layer.weight / 128, network["conv"].weight)
    assert layer.output == Format(24, 2.0**-7)
    assert isinstance(second, ops.IntegerNeuron)
    assert int(second.threshold) == (93 if fires == ">" else 92)
    spikes = torch.from_numpy(np.random.default_rng(0).random((4, 3, 9, 8)) < 0.3)
    sums = execute_node(network["conv"], [spikes], 4, torch.float64)
    expected = execute_node(network["second"], [sums], 4, torch.float64)
    found = execute(second, [execute(layer, [spikes], 4)], 4)
    assert 0.05 < expected.float().mean() < 0.6
    assert torch.equal(found[:exact_steps], expected[:exact_steps])


def quantize_layers(network: Network):
    """The operations of a network, its scales from ranges of 1; an Output that is no image is left out."""
    formats = Formats(network, dict.fromkeys((node.name for node in network.nodes), 1.0))
    return [quantize_node(node, formats) for node in network.nodes if not isinstance(node, g.Output)]


@pytest.mark.parametrize(
    ("threshold", "step", "fires", "expected"),
    [
        (0.5, 2.0**-7, ">=", 63), (0.5, 2.0**-7, ">", 64), (0.15, 2.0**-14, ">=", 2457), (0.15, 2.0**-14, ">", 2457),
        (0.3, 0.1, ">=", 2), (0.3, 0.1, ">", 3),  # 0.3 / 0.1 = 2.9999999999999996: three, to rounding
    ],
)  # fmt: skip
def test_integer_thresholds(threshold, step, fires, expected):
    """H >= t holds for whole H from ceil(t) on, so H > ceil(t) - 1; H > t from floor(t) + 1 on."""
    assert int(_threshold(neuron("n", threshold, fires=fires), step)) == expected


def test_weight_scale_never_loses_more_than_the_largest_weight_would():
    rng = np.random.default_rng(0)
    for weight in (rng.normal(size=500), rng.standard_t(2, size=500), rng.random(500) - 0.2):
        full, step = np.abs(weight).max() / 127, weight_steps(weight[None])[0]
        errors = [np.square(round_weight(weight, s) * s - weight).sum() for s in (step, full)]
        assert errors[0] <= errors[1]
        assert np.abs(round_weight(weight, step)).max() == 127
    assert weight_steps(np.zeros((1, 9))) > 0


@pytest.mark.parametrize("ratio", [2.0**-9, 1.0, 8.0, 3.7e-4, 0.99, 1234.5])
def test_rescaling_is_exact_for_powers_of_two_and_close_for_others(ratio):
    found = rescale_by(ratio)
    assert found.shift >= 0
    assert 0 < int(found.multiplier) < 2**16
    assert abs(int(found.multiplier) / 2.0**found.shift / ratio - 1) <= (0 if np.log2(ratio) % 1 == 0 else 2.0**-16)


@pytest.mark.parametrize("threshold", [0.15, 0.5, 1.234])
def test_an_aligned_step_compares_as_the_float_threshold_does(threshold):
    """Every membrane k/64 around the threshold: v > whole and v * step >= threshold are the same."""
    weight = np.random.default_rng(0).normal(0, 0.1, 200)
    step = weight_steps(weight[None])[0]
    aligned = align_step(weight, step, threshold)
    assert abs(aligned / step - 1) <= 0.6 / (threshold / step)
    whole = int(_threshold(neuron("n", threshold), aligned))
    membranes = np.arange(64 * (whole - 3), 64 * (whole + 3))
    assert np.array_equal(membranes > 64 * whole, membranes / 64 * aligned >= threshold)


def test_steps_that_hold_the_weights_exactly_or_dwarf_the_threshold_are_kept():
    dyadic = np.random.default_rng(0).integers(-127, 128, 50) / 128
    assert align_step(dyadic, 2.0**-7, 0.15) == 2.0**-7
    assert align_step(np.array([1.0, 0.3]), 1 / 127, 0.001) == 1 / 127


@pytest.mark.parametrize("groups", [1, 2])
def test_corrected_biases_keep_the_mean_of_the_sums(groups):
    """On constant inputs of the measured mean, rounded weights and corrected bias give the float layer's sums."""
    rng = np.random.default_rng(groups)
    weight, bias = rng.normal(size=(4, 6 // groups, 1, 1)), rng.normal(size=4)
    first, last = conv("a", rng.normal(size=(6, 3, 1, 1))), conv("c", rng.normal(size=(3, 4, 1, 1)))
    network = chain(first, conv("b", weight, bias=bias, groups=groups), last, restored=True)
    means = rng.normal(size=6)
    integer = quantize(network, None)
    corrected = correct_biases(network, integer, {"b": means})["b"]
    x = torch.from_numpy(means)[None, :, None, None]
    expected = execute_node(network["b"], [x], 1, torch.float64)
    rounded = dataclasses.replace(corrected, weight=integer.by_name["b"].node.weight)
    assert torch.allclose(execute_node(rounded, [x], 1, torch.float64), expected, rtol=0, atol=1e-12)
    assert np.abs(corrected.bias - bias).max() > 1e-5


def test_layers_without_a_bias_stay_without():
    network = random_network(0)
    integer = quantize(network, None)
    bare = [node.name for node in network.nodes if isinstance(node, g.Conv) and node.bias is None]
    means = {
        node.name: np.ones(node.weight.shape[1] * node.groups) for node in network.nodes if isinstance(node, g.Conv)
    }
    corrected = correct_biases(network, integer, means)
    assert len(bare) == 2
    assert all(corrected[name].bias is None for name in bare)


def test_rescaling_of_zero():
    assert int(rescale_by(0.0).multiplier) == 0


def test_mean_and_sigmoid_by_hand():
    assert ops.reciprocal(4) == (2**15, 11)  # (s 2^15 + 2^10) >> 11 = 16 s: a quarter, with six bits more
    multiplier, shift = ops.reciprocal(3)
    assert abs(multiplier * 3 / 2.0 ** (shift + 6) - 1) < 2.0**-15
    assert [int(v) for v in ops.sigmoid_table()[[0, 1792, 2048, 2304, 4095]]] == [11, 8813, 16384, 23955, 32757]
    with pytest.raises(NetworkError, match=r"mean of 536870912 values: expected 1 to 2\^28"):
        ops.reciprocal(2**29)


@pytest.fixture(scope="module")
def integer(tiny_network, photo):
    return quantize_on_images(tiny_network, [to_pixels(photo)])


def test_a_residual_stream_keeps_one_format_per_level(integer):
    levels = {
        1: ("patch_embed.proj", "encoder_level1.0.sum", "encoder_level1.0.out", "up2_1.up.1", "decoder_level1.0.out"),
        2: ("down1_2.maxpool_conv.1", "encoder_level2.0.out", "up3_2.up.1", "concat2"),
        3: ("down2_3.maxpool_conv.1", "encoder_level3.0.out", "decoder_level3.0.out", "up3_2.resize"),
    }
    for names in levels.values():
        assert len({integer.by_name[name].output for name in names}) == 1
        assert integer.by_name[names[0]].output.bits == 18
    outputs = {op.name: op.output for op in integer.operations}
    assert (outputs["input"], outputs["derained"]) == (ops.PIXEL, ops.PIXEL)
    assert outputs["encoder_level1.0.residual.0"] == ops.SPIKE
    assert outputs["refinement.sa.4"] == ops.GATE
    restored = integer.by_name["restored"]
    assert isinstance(restored, ops.IntegerAdd)
    output = integer.by_name["derained"]
    assert isinstance(output, ops.IntegerOutput)
    assert restored.rescale.shift == 0
    assert restored.rescale.multiplier.tolist() == [1, 2**output.right]  # pixels, to the residual's fractions of one
    assert 0 < output.right <= 8


def test_a_spike_driven_network_keeps_spikes_and_one_format_per_level(spike_driven_network, photo):
    """Gains, OFF neurons and enlarged spikes change no format; a learnt threshold fires above itself."""
    integer = quantize_on_images(spike_driven_network, [to_pixels(photo)])
    levels = {
        1: ("patch_embed.proj", "encoder_level1.0.sum", "encoder_level1.0.attn.relu", "encoder_level1.0.out",
            "up2_1.up.1", "concat1", "decoder_level1.0.out"),
        2: ("down1_2.maxpool_conv.1", "encoder_level2.0.out", "up3_2.up.1", "concat2", "reduce_chan_level2.1"),
        3: ("down2_3.maxpool_conv.1", "encoder_level3.0.out", "decoder_level3.0.out"),
    }  # fmt: skip
    for names in levels.values():
        assert len({integer.by_name[name].output for name in names}) == 1
        assert integer.by_name[names[0]].output.bits == 18
    kinds = spike_driven_network.kinds
    assert all((op.output == ops.SPIKE) == (kinds[op.name] is ValueKind.SPIKE) for op in integer.operations)
    convs = [
        op.name
        for op in integer.operations
        if isinstance(op, ops.IntegerConv) and kinds[op.node.inputs[0]] is not ValueKind.SPIKE
    ]
    assert convs == ["patch_embed.proj", "output.0"]


def test_scales_per_layer_where_a_neuron_reads_and_per_channel_elsewhere(integer, tiny_network):
    raw, rescaled = integer.by_name["encoder_level1.0.residual.1"], integer.by_name["encoder_level1.0.residual.4"]
    assert len(set(raw.weight_step)) == 1
    assert raw.rescale is None
    assert len(set(rescaled.weight_step)) == 8
    assert rescaled.rescale.multiplier.shape == (8, 1, 1)
    for operation in (raw, rescaled):
        dense = operation.weight * operation.weight_step[:, None, None, None]
        assert np.array_equal(operation.node.weight, dense)
        assert np.abs(dense - tiny_network[operation.name].weight).max() <= 0.51 * operation.weight_step.max() or (
            np.abs(operation.weight).max() == 127
        )


def test_no_scale_is_finer_than_the_floor_and_calibration_leaves_headroom():
    """Two images that differ by much get the same scales as long as nothing doubles."""
    network = random_network(0)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    ranges = measure(network, [pixels]).ranges
    integer = quantize(network, ranges)
    for operation in integer.operations:
        if operation.output.bits == 18:
            scale = operation.output.scale
            assert operation.output.high * scale >= 1.9 * ranges[operation.name]
            assert scale >= 2.0**-14 or np.isclose(scale, 1 / 255 / 256)
    assert integer_equal(quantize(network, measure(network, [pixels, pixels // 2]).ranges), integer)


def integer_equal(one, other) -> bool:
    return integer_digest(one) == integer_digest(other)


def test_ranges_are_those_of_the_float_network(tiny_network, photo):
    pixels = to_pixels(photo)
    ranges = measure(tiny_network, [pixels]).ranges
    stream = execute_node(tiny_network["patch_embed.proj"], [torch.from_numpy(pixels / 255.0)[None]], 4, torch.float64)
    assert ranges["patch_embed.proj"] == pytest.approx(float(stream.abs().max()), rel=0.02)


@pytest.mark.parametrize(
    ("either_model", "floor"),
    [("released", 40), ("spike_driven", 30)],  # random weights behind neurons: a spike that flips flips others
    indirect=["either_model"],
)
def test_int8_stays_close_to_the_float_network(either_model, either_network, floor, photo):
    pixels = to_pixels(photo)
    integer = quantize_on_images(either_network, [pixels])
    expected = simulator.run(either_network, pixels / 255.0, precision="float64", count=False).output
    found = run_integer(integer, pixels) / 255.0
    assert 10 * np.log10(1 / np.mean((np.clip(expected, 0, 1) - found) ** 2)) > floor


def test_worst_case_of_a_sum():
    operation = next(op for op in quantize_layers(spiking_layer(">")) if op.name == "conv")
    weight = operation.weight.reshape(6, -1).astype(int)
    assert largest_sum(operation, ops.SPIKE) == max(weight.clip(0).sum(1).max(), -weight.clip(max=0).sum(1).min())


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([neuron("lif", reset="by", reset_value=0.5)], r"lif \(neuron\): reset 'by' 0.5, Loihi resets to 0; train"),
        ([neuron("lif", reset_value=-0.1)], r"lif \(neuron\): reset 'to' -0.1, Loihi resets to 0; train with that"),
        ([conv("c", np.full((3, 3, 1, 1), np.nan))], r"c \(conv\): NaN or infinite weights; take"),
        ([g.Linear(name="l", weight=np.full((3, 3), np.inf))], r"l \(linear\): NaN or infinite weights"),
        ([conv("c", np.ones((3, 3, 1, 1)), bias=np.full(3, np.inf))], r"c \(conv\): NaN or infinite biases; take"),
        ([neuron("lif", np.nan)], r"lif \(neuron\): NaN or infinite threshold; take an earlier checkpoint"),
        ([g.Affine(name="g", scale=np.full((4, 3, 1, 1), np.inf))], r"g \(affine\): NaN or infinite scale; take"),
        ([conv("c", np.ones((3, 3, 1, 1))), g.Resize(name="r", factor=3)], r"r \(resize\): bilinear by 3.*; enlarge"),
        ([conv("c", np.ones((3, 3, 1, 1)))], r"y \(output\): its input has the scale .*2\^-k of a pixel; let the"),
    ],
)  # fmt: skip
def test_what_integers_cannot_hold_is_refused_by_name(nodes, message):
    network = chain(*nodes)
    with pytest.raises(QuantizationError, match=message):
        quantize(network, {node.name: 1.0 for node in network.nodes})


def test_an_unknown_kind_is_refused():
    class Strange(g.Node):
        pass

    with pytest.raises(QuantizationError, match="odd: no integer rule for kind strange; add one to "):
        quantize_node(Strange(name="odd"), Formats(random_network(0), None))


def test_gains_of_both_signs_and_a_fine_input_are_rescaled(tiny_network):
    """An ON/OFF pair on a stream, and a neuron on a mean, which has more bits than a neuron adds up."""
    network = random_network(1)
    integer = quantize(network, {node.name: 1.0 for node in network.nodes})
    varied = [op for op in integer.operations if isinstance(op, ops.IntegerNeuron) and op.rescale is not None]
    assert varied
    for operation in varied:
        ratios = operation.rescale.multiplier / 2.0**operation.rescale.shift / network[operation.name].gain
        coarser = 2.0 ** np.round(np.log2(ratios.mean()))  # so that its bias has 13 bits, its input 18
        assert coarser <= 1.0
        assert np.abs(ratios / coarser - 1).max() < 2.0**-14
    sigmoid = next(op for op in integer.operations if isinstance(op, ops.IntegerSigmoid))
    scale = integer.by_name[sigmoid.node.inputs[0]].output.scale
    assert int(sigmoid.rescale.multiplier) / 2.0**sigmoid.rescale.shift == scale * 256


def test_calibration_needs_images(tmp_path, tiny_network):
    with pytest.raises(UserError, match="tiny: no calibration images; give at least one"):
        measure(tiny_network, [])
    with pytest.raises(UserError, match=r"--calibration .*missing: expected a folder of rainy images; without it"):
        calibration_images(tmp_path / "missing", 4)
    with pytest.raises(UserError, match="holds no image"):
        calibration_images(tmp_path, 4)


def test_the_image_that_ships_is_the_default():
    (pixels,) = calibration_images(None, 4)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 256, 384))
    assert np.array_equal(centre_pixels(None, 8, 4), pixels[:, 124:132, 190:194])
    with pytest.raises(UserError, match=r"rainy.png: 256x384 pixels, --input-size needs 512x64; take a larger --image"):
        centre_pixels(None, 512, 64)
