"""The command: what it writes, prints and returns, and that nothing is left when the check fails."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import snntorch
import torch

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import load_checkpoint, save_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.layers import StepConv
from esdnet.networks.esdnet.model import ESDNet
from export.graph.check_images import SMALL, plain_images, sample_image, small_images
from export.graph.network import Network
from export.graph.rules import DesignRuleError
from export.graph.store import network_digest
from export.readers.esdnet import lower
from export.targets.nir import graph as nir_graph
from export.targets.nir import run as nir_run
from export.targets.nir import write as nir_write
from export.targets.nir.check import CheckReport, check_export, compare_export, write_reference
from export.targets.nir.export import checked_network
from export.targets.nir.read import open_export, read_network
from export.targets.nir.report import table
from export.to_nir import main
from hw_sim import energy
from tests.gated import every_kind, gated_model
from tests.ties import NEURON, tied_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, golden_model) -> Path:
    """The authors' golden network as a checkpoint: every layer of it fires."""
    path = tmp_path_factory.mktemp("checkpoint") / "golden.pt"
    save_checkpoint(path, golden_model)
    return path


@pytest.fixture(scope="module")
def network(checkpoint) -> Network:
    return lower(load_checkpoint(checkpoint))


def test_the_command_writes_checks_and_reports(checkpoint, network, tmp_path, monkeypatch, capsys):
    """Also over an earlier export, which goes away only when the new one is good."""
    monkeypatch.chdir(tmp_path)
    nir_write.write_folder(network, 16, 16, tmp_path / "golden_nir")
    assert main([str(checkpoint), "--input-size", "32", "24"]) == 0
    out = capsys.readouterr().out
    assert "encoder_level1.0.residual.2" in out.split("folded into encoder_level1.0.residual.1")[0]
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "LIF in 00_patch_embed.nir" in lines["encoder_level1.0.residual.0"]
    assert "two edges in" in lines["encoder_level1.0.sum"]
    assert "2 Conv2d 1x1 that place channels in" in lines["concat2"]
    assert "host (reduce, linear, activation, add, mul, concat, conv)" in lines["encoder_level1.0.attn: 29 operations"]
    assert "host (resize)" in lines["up2_1.resize"]
    assert " 0 differ (promise: 0), and 0 at near-ties" in out
    assert "near-ties: none" in out
    assert "neuron layers silent on all check images, so not exercised: 0 of 17" in out
    assert "network read back: equal to the last bit" in out
    assert "wrote golden_nir" in out
    assert network_digest(read_network("golden_nir")) == network_digest(network)
    assert open_export("golden_nir").manifest["input_shape"] == [1, 3, 32, 24]
    assert [path.name for path in tmp_path.iterdir()] == ["golden_nir"]


@pytest.mark.slow
@every_kind
def test_a_gated_checkpoint_is_exported_checked_and_read_back(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("gated.pt", gated_model(kind))
    assert main(["gated.pt", "--input-size", "32", "24"]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "Conv2d 1x1 of its gate, LIF in" in lines["encoder_level1.0.residual.3"]
    assert "Conv2d 1x1, Conv2d 1x1 of its gate, LIF in" in lines["encoder_level1.0.residual.0.off"]
    assert "network read back: equal to the last bit" in lines
    assert network_digest(read_network("gated_nir")) == network_digest(lower(load_checkpoint(Path("gated.pt"))))


@pytest.mark.slow
def test_a_spike_driven_checkpoint_is_exported_checked_and_read_back(
    spike_driven_model, spike_driven_network, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.pt", spike_driven_model)
    assert main(["tiny.pt", "--input-size", "16", "16"]) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "host (affine, activation)" in lines["encoder_level1.0.attn: 2 operations"]
    assert "host (resize)" in lines["up2_1.resize"]
    assert " 0 differ (promise: 0)" in out
    assert f"silent on all check images, so not exercised: 0 of {len(spike_driven_network.neurons)}" in out
    assert "network read back: equal to the last bit" in out
    back = replace(read_network("tiny_nir"), name="tiny")
    assert network_digest(back) == network_digest(spike_driven_network)


def test_every_operation_of_the_model_is_in_the_table(checkpoint, network, tmp_path):
    model = load_checkpoint(checkpoint)
    manifest = nir_write.write_folder(network, 16, 16, tmp_path / "nir")
    spikes = {node.name: 1 for node in network.neurons}
    text = table(network, manifest, CheckReport((), spikes, dict.fromkeys(spikes, 0), output_difference=0.0))
    first = [line.split("  ")[0] for line in text.splitlines()[2:]]
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.Conv2d, torch.nn.Conv3d)):
            assert name in first or any(line.startswith(f"{part}: ") for line in first for part in parents(name)), name
    shown = sum(int(line.split(": ")[1].split()[0]) for line in first if line.endswith(" operations"))
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    rows = first[: first.index("")]
    alone = len(rows) - norms - sum(line.endswith(" operations") for line in rows)
    assert shown + alone == len(network.nodes)


def parents(name: str) -> list[str]:
    pieces = name.split(".")
    return [".".join(pieces[:count]) for count in range(1, len(pieces))]


@pytest.mark.slow
def test_an_export_by_a_script_without_installation(tmp_path, tiny_model, tiny_network):
    """From another folder, with nothing but the interpreter: the root is found, the export is checked."""
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    command = [
        sys.executable,
        str(ROOT / "export" / "to_nir.py"),
        "tiny.pt",
        "--input-size",
        "16",
        "16",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " 0 differ (promise: 0)" in done.stdout
    back = read_network(tmp_path / "tiny_nir")
    assert network_digest(replace(back, name="tiny")) == network_digest(tiny_network)


def test_the_pricing_command_takes_an_export(checkpoint, network, tmp_path, capsys):
    """Every count and every joule as from the checkpoint, for an image of another size than the export's."""
    path = tmp_path / "x_nir"
    nir_write.write_folder(network, 16, 16, path)
    save_image(tmp_path / "rainy.png", sample_image(24, 32).transpose(1, 2, 0))
    reports = []
    for source in (["--checkpoint", str(checkpoint)], ["--network", str(path)]):
        file = tmp_path / f"{source[0]}.json"
        arguments = ["--image", str(tmp_path / "rainy.png"), *source, "--precision", "float64", "--json", str(file)]
        assert energy.main(arguments) == 0
        reports.append(json.loads(file.read_text()))
    capsys.readouterr()
    assert reports[0]["totals"]["spikes"] > 0
    for key in ("totals", "layers", "parameters", "executed_size"):
        assert reports[0][key] == reports[1][key]


# --- mistakes of the user: one line, status 2, nothing left -----------------------------------------------------------


def refused(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err.split("error: ", 1)[1]


def test_a_size_that_the_levels_do_not_divide(checkpoint, tmp_path, capsys):
    found = refused(capsys, [str(checkpoint), "-o", str(tmp_path / "x"), "--input-size", "30", "20"])
    assert "size 30x20, expected multiples of 4; use --input-size 32 20" in found
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint(tmp_path, capsys):
    assert "none.pt: expected a checkpoint file, found nothing" in refused(capsys, [str(tmp_path / "none.pt")])


def test_an_output_in_a_folder_that_is_not_there(checkpoint, tmp_path, capsys):
    found = refused(capsys, [str(checkpoint), "-o", str(tmp_path / "a" / "b")])
    assert "the folder that it goes to does not exist" in found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_what_is_not_an_export_is_not_replaced(checkpoint, tmp_path, capsys, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("thesis")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "thesis.txt").write_text("thesis")
    found = refused(capsys, [str(checkpoint), "-o", str(target)])
    assert "exists and is not a NIR export of this program" in found
    assert target.exists()


def test_a_full_disk(checkpoint, tmp_path, capsys, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nir_write, "write_graph", fail)
    found = refused(capsys, [str(checkpoint), "-o", str(tmp_path / "x"), "--input-size", "16", "16"])
    assert "cannot be written" in found
    assert "No space left on device" in found
    assert list(tmp_path.iterdir()) == []


# --- a check that fails: status 1, nothing left, an earlier export kept -----------------------------------------------


def test_a_wrong_export_is_not_kept(checkpoint, network, tmp_path, capsys, monkeypatch):
    """The exporter gets the firing rule wrong by as little as 1e-3 of the threshold, for one run."""
    target = written(network, tmp_path)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    lower_right = nir_graph.encode_lif

    def wrong(node):
        return lower_right(replace(node, threshold=node.threshold * 0.999))

    monkeypatch.setattr(nir_graph, "encode_lif", wrong)
    assert main([str(checkpoint), "-o", str(target), "--input-size", "16", "16"]) == 1
    captured = capsys.readouterr()
    assert "check failed, nothing was written" in captured.err
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def written(network: Network, folder: Path) -> Path:
    nir_write.write_folder(network, 16, 16, folder / "nir")
    return folder / "nir"


def compared(path: Path, model: ESDNet, network: Network, images: dict[str, np.ndarray]) -> CheckReport:
    """The check, in this process."""
    write_reference(path.parent / "reference.npz", model, network, images)
    return compare_export(path, path.parent / "reference.npz")


SAMPLE = {"sample": sample_image(16, 16)}


def test_the_check_finds_one_changed_weight(checkpoint, network, tmp_path):
    """A Network with another weight is written under the model's name: the layer is named, and no later one accused."""
    name = "encoder_level1.0.residual.1"
    weight = network[name].weight.copy()
    weight[0, 0, 1, 1] += 0.5
    other = replace(network, nodes=tuple(replace(n, weight=weight) if n.name == name else n for n in network.nodes))
    report = compared(written(other, tmp_path), load_checkpoint(checkpoint), network, SAMPLE)
    assert not report.same_network
    assert [neuron for neuron, count in report.mismatches.items() if count] == ["encoder_level1.0.residual.3"]
    assert report.failures[0].startswith(f"sample: {name}: encoder_level1.0.residual.3, step 0: ")
    assert report.failures[0].endswith(" spikes differ, no near-tie explains them")
    assert report.failures[-1] == "network: the one read back is not the one written"


def test_the_check_finds_an_output_that_is_off(checkpoint, network, tmp_path):
    bias = network["output.0"].bias + 2e-9
    other = replace(network, nodes=tuple(replace(n, bias=bias) if n.name == "output.0" else n for n in network.nodes))
    report = compared(written(other, tmp_path), load_checkpoint(checkpoint), network, SAMPLE)
    assert sum(report.mismatches.values()) == 0
    assert report.output_difference == pytest.approx(2e-9, rel=1e-3)
    assert report.failures[0] == "sample: output: differs by 2e-09, promised 1e-09"


def test_the_check_runs_the_files_and_not_the_network(tmp_path, tiny_model, tiny_network, monkeypatch):
    """Nothing is wrong with the files, but a reader that takes another threshold must be noticed, and where."""
    path = written(tiny_network, tmp_path)
    step = nir_run.decayed
    monkeypatch.setattr(nir_run, "decayed", lambda node, v, x, dt_s: step(node, v, x, dt_s) / 1.01)
    report = compared(path, tiny_model, tiny_network, SAMPLE)
    assert report.same_network
    assert report.failures[0].startswith("sample: patch_embed.proj: encoder_level1.0.residual.0, step 0: ")


def test_the_check_reports_what_cannot_be_read(checkpoint, network, tmp_path):
    path = written(network, tmp_path)
    (path / "arrays.npz").unlink()
    report = check_export(path, load_checkpoint(checkpoint), network, SAMPLE)
    (failure,) = report.failures
    assert failure.startswith("the export could not be read back: error: ")
    assert "arrays.npz: missing, the export is incomplete" in failure


def test_the_check_names_neurons_of_one_side(network, tmp_path):
    reference = tmp_path / "reference.npz"
    ghost = {"sample/spikes/ghost": np.zeros(1, np.uint8), "images": ["sample"]}
    np.savez(reference, digest="", **ghost, **{"sample/image": sample_image(16, 16)})
    report = compare_export(written(network, tmp_path), reference)
    assert "a neuron of one side only (18 such)" in report.failures[0]


def test_a_tie_is_explained_counted_and_named_and_the_export_is_written(tmp_path, monkeypatch, capsys):
    """Torch fires where the graph, with its folded batch norm, does not: on black images, a whole channel."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tied.pt", tied_model())
    assert main(["tied.pt", "--input-size", "16", "16"]) == 0
    captured = capsys.readouterr()
    assert f" 0 differ (promise: 0), and {2 * SMALL**2} at near-ties" in captured.out
    for step in range(4):
        line = f"black: {NEURON}, step {step}: {SMALL**2} within rounding of the threshold, the nearest 0.0e+00 off"
        assert line in captured.out
    assert (
        f"note: 4 near-ties, where {2 * SMALL**2} spikes differ; the first: black: {NEURON}, step 0: " in captured.err
    )


@pytest.mark.parametrize("factor", [1.001, 1.5])
def test_a_mismatch_beside_a_near_tie_fails(tmp_path, factor):
    """The same network, and weights that are off in a layer behind the near-ties: they do not excuse it.

    A thousandth flips no spike here: it is the network read back that is another. A half is seen, and the layer named.
    """
    model = tied_model()
    network, name = lower(model), "encoder_level2.0.residual.1"
    weight = network[name].weight * factor
    other = replace(network, nodes=tuple(replace(n, weight=weight) if n.name == name else n for n in network.nodes))
    report = compared(written(other, tmp_path), model, network, small_images(network))
    assert sum(report.at_ties.values()) == 2 * SMALL**2
    assert "network: the one read back is not the one written" in report.failures
    accused = {failure.split(": ")[1] for failure in report.failures if "spikes differ" in failure}
    assert accused == ({name} if factor == 1.5 else set())


@pytest.mark.slow
def test_nothing_spikes_and_the_check_says_that_it_proves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_checkpoint("silent.pt", ESDNet(replace(preset("tiny"), threshold=1e6)).eval())
    assert main(["silent.pt", "--input-size", "16", "16"]) == 0
    assert "note: nothing spiked on any check image: the check proves nothing of the neurons" in capsys.readouterr().err


def test_the_images_are_the_same_every_time_and_within_range(tiny_network):
    assert np.array_equal(sample_image(24, 16), sample_image(24, 16))
    assert 0.0 <= sample_image(24, 16).min() < sample_image(24, 16).max() <= 1.0
    plain = plain_images(8, 12)
    assert {name: (image.min(), image.max()) for name, image in plain.items() if name != "noise"} == {
        "black": (0, 0), "white": (1, 1), "grey": (0.5, 0.5),
    }  # fmt: skip
    assert np.array_equal(plain["noise"], plain_images(8, 12)["noise"])
    assert {image.shape for image in small_images(tiny_network).values()} == {(3, SMALL, SMALL)}


# --- models that NIR cannot hold --------------------------------------------------------------------------------------


def test_violations_of_model_and_size_come_together():
    model = ESDNet(preset("tiny")).eval()
    model.encoder_level1[0].residual[0].state_quant = torch.round
    model.down1_2.maxpool_conv[0].reset_mechanism = "subtract"
    model.down2_3.maxpool_conv[1] = StepConv(16, 32, 3, stride=2, padding=1, groups=8, bias=False)
    with pytest.raises(DesignRuleError) as caught:
        checked_network(model, 30, 64)
    lines = str(caught.value).splitlines()
    assert lines[0] == "NIR: 4 violations of its design rules:"
    assert "encoder_level1.0.residual.0 (LIF): quantised state" in lines[1]
    assert "down1_2.maxpool_conv.0 (LIF): reset 'subtract'" in lines[2]
    assert "down2_3.maxpool_conv.1 (conv): groups 8" in lines[3]
    assert "size 30x64" in lines[4]


def test_violations_come_with_what_lowering_refuses():
    model = ESDNet(preset("tiny")).eval()
    model.up2_1.up[0] = snntorch.Leaky(0.5, reset_mechanism="zero", graded_spikes_factor=2.0)
    with pytest.raises(DesignRuleError) as caught:
        checked_network(model, 64, 64)
    text = str(caught.value)
    assert "up2_1.up.0 (Leaky): graded spikes (factor 2)" in text
    assert "up2_1.up.0 (Leaky): no lowering rule for this module" in text
