"""Train, resume, evaluate and derain with networks that are no ESDNet: the same commands, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.derain import main as derain
from esdnet.evaluate import main as evaluate
from esdnet.images.files import load_image
from esdnet.images.metrics import psnr_y
from esdnet.images.rain_streaks import rain_mask
from esdnet.networks.architectures import build, preset
from esdnet.networks.checkpoint import load_network, read_checkpoint, save_checkpoint
from esdnet.networks.dual_stage.model import DualStage, pad
from esdnet.train import main as train
from esdnet.training.data import PairedFolder

NETWORKS = ("tiny_dual_stage", "tiny_nafnet")


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    flags = ["--batch", "1", "--crop", "32", "--held-out", "1", "--warmup", "2", "--threads", "1", "--device", "cpu"]
    return [*flags, "--data", str(pairs), "--out", str(out), *more]


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request: pytest.FixtureRequest, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of four steps; it has the preset's name."""
    out = tmp_path_factory.mktemp("runs") / request.param
    settings = ["--preset", request.param, "--loss", "log_ssim", "--steps", "4", "--save-every", "2"]
    assert train(command(pairs, out, *settings)) == 0
    return out


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line of an error."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_run_has_the_averaged_weights_of_its_network(trained: Path) -> None:
    assert load_network(trained / "best.pt").config == preset(trained.name)
    last, averaged = read_checkpoint(trained / "last.pt"), read_checkpoint(trained / "ema.pt")
    assert last["extra"]["training"]["log_weight"] == 0.1
    assert all(torch.equal(last["extra"]["ema"][key], value) for key, value in averaged["state_dict"].items())
    assert any(not torch.equal(last["state_dict"][key], value) for key, value in averaged["state_dict"].items())


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    trained: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, drawn = PairedFolder.sample, []

    def interrupting(self, rng, crop):
        drawn.append(crop)
        if len(drawn) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(self, rng, crop)

    settings = ["--preset", trained.name, "--loss", "log_ssim", "--steps", "4", "--save-every", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(PairedFolder, "sample", interrupting)
        assert train(command(pairs, tmp_path / "parts", *settings)) == 1
    assert 1 <= read_checkpoint(tmp_path / "parts" / "last.pt")["extra"]["step"] < 4
    assert train(["--out", str(tmp_path / "parts"), "--resume", "--threads", "1", "--device", "cpu"]) == 0
    whole, parts = (read_checkpoint(folder / "last.pt") for folder in (trained, tmp_path / "parts"))
    for weights in (lambda run: run["state_dict"], lambda run: run["extra"]["ema"]):
        assert all(torch.equal(value, weights(parts)[key]) for key, value in weights(whole).items())


def test_another_run_starts_from_its_weights(trained: Path, pairs: Path, tmp_path: Path) -> None:
    settings = ["--init", str(trained / "ema.pt"), "--steps", "1", "--lr", "1e-7"]
    assert train(command(pairs, tmp_path / "b", *settings)) == 0
    ours, theirs = load_network(tmp_path / "b" / "last.pt"), load_network(trained / "ema.pt")
    assert ours.config == theirs.config
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=0, atol=1e-6)  # one step of 1e-7


MISTAKES = {
    "crop": (["--crop", "36"], "crop must be a multiple of {multiple} for a {name} network, found 36"),
    "spikes": (["--firing-price", "1"], "needs a network with LIF neurons, found one without"),
    "norms": (["--freeze-norm"], "freeze_norm needs batch norms, the {name} network has none"),
    "teacher": (
        ["--teacher", "small_released", "--distillation", "1"],
        "distillation: an ESDNet learns from an ESDNet, found another architecture",
    ),
    "init": (["--init", "small_released"], "but --preset tiny_{name} is "),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_network_cannot_take(mistake: str, network: str, pairs: Path, tmp_path: Path, capsys) -> None:
    flags, message = MISTAKES[mistake]
    assert train(command(pairs, tmp_path / "run", "--preset", network, "--steps", "1", *flags)) == 2
    name = network.removeprefix("tiny_")
    assert message.format(name=name, multiple=build(preset(network)).size_multiple) in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_another_preset_cannot_resume_it(trained: Path, pairs: Path, capsys) -> None:
    assert train(command(pairs, trained, "--preset", "tiny", "--steps", "4", "--resume")) == 2
    assert "but --preset tiny is ESDNetConfig" in error_of(capsys)


def test_it_derains_in_tiles_and_is_scored_on_that(trained: Path, pairs: Path, tmp_path: Path) -> None:
    flags = ["--checkpoint", str(trained / "ema.pt"), "--tile", "32", "--device", "cpu"]
    assert evaluate(["--data", str(pairs), *flags, "--json", str(tmp_path / "s.json")]) == 0
    assert derain([str(pairs / "input"), "-o", str(tmp_path / "out"), *flags]) == 0
    for row in json.loads((tmp_path / "s.json").read_text())["images"]:
        output, clean = (load_image(folder / f"{row['name']}.png") for folder in (tmp_path / "out", pairs / "target"))
        assert row["tiles"] > 1
        assert row["executed_size"] == [32, 32]
        assert row["psnr"] == pytest.approx(psnr_y(output, clean), rel=1e-12)


def test_a_file_is_what_the_network_says(trained: Path, pairs: Path, tmp_path: Path) -> None:
    source, out = pairs / "input" / "0.png", tmp_path / "o.png"
    assert derain([str(source), "-o", str(out), "--checkpoint", str(trained / "ema.pt"), "--device", "cpu"]) == 0
    with torch.inference_mode():
        output = load_network(trained / "ema.pt")(planes(source))[0].double().numpy()
    expected = np.floor(np.clip(output, 0, 1) * 255 + 0.5).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(Image.open(out)), expected)


@pytest.mark.parametrize("run", [derain, evaluate])
def test_tiles_that_the_network_cannot_take(run, trained: Path, pairs: Path, tmp_path: Path, capsys) -> None:
    given = ["--data", str(pairs)] if run is evaluate else [str(pairs / "input"), "-o", str(tmp_path / "out")]
    assert run([*given, "--checkpoint", str(trained / "ema.pt"), "--tile", "36", "--device", "cpu"]) == 2
    multiple = load_network(trained / "ema.pt").size_multiple
    assert f"tile size 36: expected 0 (whole image) or a multiple of {multiple}, such as 32" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def planes(path: Path) -> torch.Tensor:
    return torch.from_numpy(load_image(path).transpose(2, 0, 1)[None]).float()


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "masked.pt", DualStage(preset("tiny_dual_stage")))
    return tmp_path / "masked.pt"


def show_mask(source: Path, out: Path, *more: Path | str) -> int:
    flags = ["-o", out / "o.png", "--show-mask", out / "m.png", "--device", "cpu"]
    return derain([str(each) for each in (source, *flags, *more)])


def test_the_mask_is_shown_as_the_network_has_it(masked: Path, pairs: Path, tmp_path: Path, capsys) -> None:
    source = pairs / "input" / "0.png"
    assert show_mask(source, tmp_path, "--checkpoint", masked) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "o.png"), str(tmp_path / "m.png")]
    shown = np.asarray(Image.open(tmp_path / "m.png"))
    expected = rain_mask(pad(planes(source)))[0, 0, :45, :70].numpy() * 255
    assert 0 < expected.mean() < 255
    assert np.array_equal(shown, np.repeat(expected[..., None], 3, axis=2))


def test_of_tiles_the_mask_is_each_tile_s(masked: Path, pairs: Path, tmp_path: Path) -> None:
    source = pairs / "input" / "0.png"
    assert show_mask(source, tmp_path, "--checkpoint", masked, "--tile", "32", "--overlap", "0") == 0
    shown = np.asarray(Image.open(tmp_path / "m.png"))[..., 0]
    padded = pad(planes(source))
    for top in (0, 32):
        for left in (0, 32, 64):
            expected = rain_mask(padded[..., top : top + 32, left : left + 32])[0, 0].numpy() * 255
            part = shown[top : top + 32, left : left + 32]
            assert np.array_equal(part, expected[: part.shape[0], : part.shape[1]])


def test_a_mask_that_is_not_there(masked: Path, pairs: Path, tmp_path: Path, capsys) -> None:
    source = pairs / "input" / "0.png"
    out = tmp_path / "out"
    out.mkdir()
    for given, message in [
        ((source, out, "--checkpoint", "small_released"), "--show-mask: small_released.pt (bundled) has no rain mask"),
        ((pairs / "input", out, "--checkpoint", masked), "--show-mask: is that of one image"),
        ((source, out, "--checkpoint", masked, "--skip-existing"), "--show-mask: is that of one image"),
        ((source, out, "--checkpoint", masked, "--show-mask", out / "m.jpg"), "expected a name that ends in .png"),
        ((source, out, "--checkpoint", masked, "--show-mask", out / "o.png"), "would overwrite another output"),
        ((source, out, "--checkpoint", masked, "--show-mask", source), "would overwrite an input"),
    ]:
        if given[0].is_dir():
            assert derain([str(given[0]), "-o", str(out / "f"), "--show-mask", str(out / "m.png")]) == 2
        else:
            assert show_mask(*given) == 2
        assert message in error_of(capsys)
        assert list(out.iterdir()) == []
