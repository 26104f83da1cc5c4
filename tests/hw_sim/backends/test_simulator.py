from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from esdnet.networks.esdnet.layers import StepConv
from export.graph import nodes as g
from export.graph.execute import execute_node
from export.graph.network import Network
from export.graph.nodes import NetworkError, ValueKind
from export.readers.esdnet import lower
from hw_sim.backends import count_plan, simulator, torch_model
from hw_sim.backends.result import compare
from tests.tolerances import FLOAT32_MEMBRANE, FLOAT64_OUTPUT


def test_every_count_of_the_golden_network_is_exact(golden, golden_network):
    result = simulator.run(golden_network, golden.input[0], precision="float64")
    assert np.abs(result.output - golden.output[0]).max() < FLOAT64_OUTPUT
    spikes = {name: int(result.counts[name].spikes.sum()) for name in golden.spikes}
    assert spikes == {name: int(count) for name, count in golden.spikes.items()}
    for name, (macs, acs) in golden.operations.items():
        totals = result.counts[name].totals()
        assert totals["dense_taps"] == macs, name
        assert (totals["acs"], totals["macs"]) == ((acs, 0) if acs >= 0 else (0, macs)), name
    assert sum(counts.totals()["acs"] for counts in result.counts.values()) == 77_291_776  # golden/…dim16.json


@pytest.mark.parametrize("seed", range(3))
def test_float64_equals_torch_spike_for_spike(either_model, either_network, seed):
    image = np.random.default_rng(seed).random((3, 32, 20))
    model = type(either_model)(either_model.config)
    model.load_state_dict(either_model.state_dict())
    reference = torch_model.run(model, either_network, image, precision="float64")
    result = simulator.run(either_network, image, precision="float64")
    difference = compare(reference, result)
    assert sum(int(spikes.sum()) for spikes in reference.spikes.values()) > 1000
    assert difference.equal_spikes, difference.first
    assert difference.max_difference < FLOAT64_OUTPUT


def test_float32_membranes_layer_by_layer(either_model, either_network, photo):
    """On the reference's own inputs, each folded float32 convolution stays within the promised distance."""
    inputs: dict[str, torch.Tensor] = {}
    model = type(either_model)(either_model.config)
    model.load_state_dict(either_model.state_dict())
    model.double().eval()
    hooks = [
        module.register_forward_pre_hook(lambda m, args, name=name: inputs.__setitem__(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, StepConv)
    ]
    with torch.no_grad():
        model(torch.from_numpy(photo)[None])
    for hook in hooks:
        hook.remove()
    for name, value in inputs.items():
        node = either_network[name]
        exact = execute_node(node, [value[:, 0]], 4, torch.float64)
        rounded = execute_node(node, [value[:, 0].float()], 4, torch.float32)
        assert (exact - rounded.double()).abs().max() < FLOAT32_MEMBRANE, name


def test_counting_changes_nothing(either_network, photo):
    counted = simulator.run(either_network, photo, precision="float64")
    plain = simulator.run(either_network, photo, precision="float64", keep_spikes=False, count=False)
    assert np.array_equal(counted.output, plain.output)
    assert plain.counts == {}
    assert plain.spikes == {}


def test_plans_of_many_sizes_are_not_all_kept(spike_driven_network):
    """A folder of photos of ten thousand sizes; the first is run again in the end."""
    sizes = [(4 * rows, 4 * columns) for rows in (3, 4, 5, 6) for columns in range(3, 9)]
    images = [np.random.default_rng(0).random((3, *size)) for size in [*sizes, sizes[0]]]
    found = [simulator.run(spike_driven_network, image, keep_spikes=False).counts for image in images]
    assert len(count_plan._PLANS[spike_driven_network]) == count_plan.KEPT_PLANS < len(sizes)
    assert all(found[0][name].totals() == counts.totals() for name, counts in found[-1].items())


def test_a_spike_driven_network_multiplies_in_its_first_and_last_convolution_only(spike_driven_network, photo):
    counts = simulator.run(spike_driven_network, photo, precision="float64").counts
    convs = [node.name for node in spike_driven_network.nodes if isinstance(node, g.Conv)]
    totals = {name: counts[name].totals() for name in convs}
    assert [name for name in convs if totals[name]["macs"]] == ["patch_embed.proj", "output.0"] == [convs[0], convs[-1]]
    assert all(totals[name]["acs"] > 0 for name in convs[1:-1])
    taps = {"patch_embed.proj": 8 * 3, "output.0": 3 * 16}  # once each, not once per step
    height, width = photo.shape[1:]
    inside = (3 * height - 2) * (3 * width - 2)  # taps of a 3x3 convolution that do not fall on padding
    assert {name: totals[name]["macs"] for name in taps} == {name: pairs * inside for name, pairs in taps.items()}


def test_counts_are_per_time_step(golden, golden_network):
    result = simulator.run(golden_network, golden.input[0], precision="float64")
    name = "encoder_level1.0.residual.0"
    assert result.counts[name].spikes.tolist() == result.spikes[name].sum((1, 2, 3)).tolist()
    assert result.counts["patch_embed.proj"].macs.tolist() == [golden.operations["patch_embed.proj"][0] // 4] * 4
    assert len(result.counts["refinement.sa.0"].macs) == 1


def small(*nodes: g.Node, steps: int = 5) -> Network:
    first = g.Input(name="image", channels=1)
    return Network(name="small", nodes=(first, *nodes, g.Output(name="out", inputs=(nodes[-1].name,))), steps=steps)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # constant input 0.5, decay 0.5: H = 0.5, 0.75, 0.875 | a threshold of 0.75 is met exactly at step 1
        ({"threshold": 0.75, "fires": ">="}, [0, 1, 0, 1, 0]),
        ({"threshold": 0.75, "fires": ">"}, [0, 0, 1, 0, 0]),
        # soft reset by 0.75: H = .5, .75* -> 0, .5, .75* -> 0
        ({"threshold": 0.75, "reset": "by", "reset_value": 0.75}, [0, 1, 0, 1, 0]),
        # reset to -0.5: .5, .75* -> -.5, .25, .625, .8125*
        ({"threshold": 0.75, "reset_value": -0.5}, [0, 1, 0, 0, 1]),
        # a current that keeps half: I = .5, .75, .875 ; H = .5, 1* -> 0, .875* -> 0 ...
        ({"threshold": 0.75, "current_decay": 0.5}, [0, 1, 1, 1, 1]),
        # gain -1 and bias 1: the same drive of 0.5
        ({"threshold": 0.75, "gain": np.array(-1.0), "bias": np.array(1.0)}, [0, 1, 0, 1, 0]),
    ],
)
def test_neuron_dynamics_worked_out_by_hand(fields, expected):
    values = {"threshold": np.array(fields.pop("threshold")), **fields}
    neuron = g.Neuron(name="n", inputs=("code",), membrane_decay=0.5, **values)
    graph = small(g.Repeat(name="code", inputs=("image",)), neuron)
    result = simulator.run(graph, np.full((1, 8, 8), 0.5), precision="float64")
    assert result.spikes["n"][:, 0, 0, 0].astype(int).tolist() == expected


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_threshold_that_no_float_holds_is_compared_in_the_dtype_in_use(precision):
    """0.15 is rounded differently in both dtypes; the pixel is the dtype's own 0.15 and must fire at '>='."""
    neuron = g.Neuron(name="n", inputs=("code",), membrane_decay=0.5, threshold=np.array(0.15))
    graph = small(g.Repeat(name="code", inputs=("image",)), neuron, steps=1)
    pixel = np.dtype(precision).type(0.15)
    image = np.full((1, 8, 8), pixel)
    image[0, 0, 0] = np.nextafter(pixel, -np.inf, dtype=image.dtype)
    spikes = simulator.run(graph, image, precision=precision).spikes["n"][0, 0]
    assert not spikes[0, 0]
    assert spikes.sum() == 63


def test_nearest_resize_of_spikes_feeds_acs():
    graph = small(
        g.Repeat(name="code", inputs=("image",)),
        g.Neuron(name="n", inputs=("code",), membrane_decay=0.5, threshold=np.array(0.2)),
        g.Resize(name="up", inputs=("n",), mode="nearest"),
        g.Conv(name="c", inputs=("up",), weight=np.ones((1, 1, 1, 1))),
        steps=1,
    )
    result = simulator.run(graph, np.full((1, 8, 8), 0.5), precision="float64")
    assert result.counts["c"].totals()["acs"] == 256  # 64 spikes, each copied to 4 pixels


def test_a_value_that_breaks_its_declaration_ends_the_run(tiny_network, photo):
    network = dataclasses.replace(tiny_network)  # one of its own: the simulator remembers a network's plans
    network.kinds["patch_embed.proj"] = ValueKind.SPIKE
    with pytest.raises(NetworkError, match=r"patch_embed\.proj: declared spike, found torch\.float64 values"):
        simulator.run(network, photo, precision="float64")


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 30, 32), "multiples of 4"), ((1, 32, 32), "image has 1 channels, expected 3"), ((32, 32), "image of shape")],
)
def test_images_that_do_not_fit_are_refused(tiny_network, shape, message):
    with pytest.raises(NetworkError, match=message):
        simulator.run(tiny_network, np.zeros(shape))


def test_an_unknown_kind_is_refused_by_name():
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Strange(g.Node):
        """A kind that nobody knows."""

    with pytest.raises(NetworkError, match="s: no rule to execute kind strange"):
        execute_node(Strange(name="s"), [], 1, torch.float64)


def test_the_torch_model_is_not_called(tiny_model, photo, monkeypatch):
    network = lower(tiny_model)
    monkeypatch.setattr(type(tiny_model), "forward", lambda *args: pytest.fail("the simulator called the torch model"))
    simulator.run(network, photo)


def test_a_value_is_written_over_only_after_its_last_reader(photo):
    """x is read by a sum, a product and an activation, the image itself by a sum: all must see it unchanged."""
    weight = np.random.default_rng(3).integers(-8, 9, (3, 3, 1, 1)) / 8
    graph = Network(
        name="shared",
        nodes=(
            g.Input(name="image"),
            g.Conv(name="x", inputs=("image",), weight=weight),
            g.Add(name="sum", inputs=("x", "image")),
            g.Activation(name="relu", inputs=("x",), function="relu"),
            g.Mul(name="product", inputs=("sum", "x")),
            g.Add(name="all", inputs=("product", "relu")),
            g.Add(name="twice", inputs=("all", "all")),
            g.Output(name="out", inputs=("twice",)),
        ),
        steps=2,
    )
    image = np.round(photo * 64) / 64
    kept = image.copy()
    x = np.einsum("oc,chw->ohw", weight[:, :, 0, 0], image)
    result = simulator.run(graph, image, precision="float64")
    assert np.array_equal(result.output, 2 * ((x + image) * x + np.maximum(x, 0)))
    assert np.array_equal(image, kept)


def test_the_same_network_runs_again_in_another_size_and_precision(either_network, photo):
    first = simulator.run(either_network, photo, precision="float64")
    simulator.run(either_network, photo[:, :16, :16], precision="float32")
    again = simulator.run(either_network, photo, precision="float64")
    assert np.array_equal(first.output, again.output)
    assert {name: counts.totals() for name, counts in first.counts.items()} == {
        name: counts.totals() for name, counts in again.counts.items()
    }
