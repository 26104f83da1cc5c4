"""The search command on a few made images, and the share of X that spike counts keep, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import spike_driven
from benchmarks.spike_driven import FIRST_SPIKES, RELEASED, SPIKE_DRIVEN, Variant, decoded_share, decoded_shares, main
from esdnet.networks.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from esdnet.networks.esdnet.model import ESDNet

DATA = ["--held-out", "1", "--counted", "1", "--batch", "1", "--data"]


def test_values_linear_in_the_counts_are_kept_whole():
    counts = np.random.default_rng(0).integers(0, 5, (2, 3, 40)).astype(float)
    x = 0.5 * counts[0] - 0.25 * counts[1] + np.arange(3)[:, None]
    assert decoded_share(x, counts) == pytest.approx(1.0)
    assert decoded_share(x, counts[:1]) < 0.95  # one polarity does not know the other


def test_the_share_by_hand():
    """Counts 0 0 1 1 give the mean of each half, 1 and 6: what is left is 2 + 8 of a variation of 35 in all."""
    x = np.array([[0.0, 2.0, 4.0, 8.0]])
    counts = np.array([[[0.0, 0.0, 1.0, 1.0]]])
    assert decoded_share(x, counts) == pytest.approx(1 - 10 / 35)
    assert decoded_share(x, np.zeros((2, 1, 4))) == pytest.approx(0.0)  # silent neurons keep the mean alone
    assert decoded_share(np.full((1, 4), 3.0), counts) == 1.0  # nothing to keep


def test_channels_have_weights_of_their_own():
    counts = np.tile([0.0, 1.0, 2.0, 3.0], (1, 2, 1))
    assert decoded_share(np.stack([counts[0, 0], -3 * counts[0, 0]]), counts) == pytest.approx(1.0)


def test_shares_of_every_block_and_both_signs_keep_more(spike_driven_model, tiny_model, photo):
    image = photo.transpose(1, 2, 0).astype(np.float32)
    shares = decoded_shares(spike_driven_model, image)
    assert list(shares) == [
        f"{side}_level{n}.0" for side, n in zip(["encoder"] * 3 + ["decoder"] * 3, "123321", strict=True)
    ]
    assert all(0 <= share <= 1 for share in shares.values())
    assert not any(module._forward_hooks for module in spike_driven_model.modules())
    assert shares["encoder_level1.0"] > decoded_shares(tiny_model, image)["encoder_level1.0"]


@pytest.mark.slow
def test_the_table_is_written_and_a_second_call_trains_nothing_again(pairs, tmp_path, capsys, monkeypatch) -> None:
    variants = {
        "released": Variant(RELEASED),
        "first spikes, MAU": Variant(FIRST_SPIKES),
        "distilled": Variant(SPIKE_DRIVEN, copies_weights=True, distillation=0.1, firing_price=0.3),
    }
    monkeypatch.setattr(spike_driven, "VARIANTS", variants)
    out = tmp_path / "out"
    flags = [*DATA, str(pairs), "--out", str(out)]
    assert main([*flags, "--steps", "1", "--teacher-steps", "1", "--seeds", "0"]) == 0
    text = (out / "search.md").read_text()
    assert text in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["variant", *variants]
    found = json.loads((out / "search.json").read_text())
    assert list(found) == list(variants)
    (released,), (first,), (both,) = found.values()
    assert released["macs"] > 10 * both["macs"] > 0  # analog shortcuts multiply
    assert first["acs"] > 0
    assert first["loss"] > 0
    assert both["loss"] is None  # it minimised something else
    assert rows[3][1:3] == ["-", "-"]
    assert dict(zip(rows[0], rows[3], strict=True))["energy (uJ)"] == f"{both['energy_uj']:.0f}"
    terms = {folder: [read_checkpoint(out / folder / "last.pt")["extra"]["training"][name]
                      for name in ("distillation", "firing_price")]
             for folder in ("released_0", "distilled_0")}  # fmt: skip
    assert terms == {"released_0": [0.0, 0.0], "distilled_0": [0.1, 0.3]}
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/last.pt")}
    assert len(before) == 4  # the teacher's is one
    assert main([*flags, "--steps", "1", "--teacher-steps", "1", "--seeds", "0"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/last.pt")} == before
    assert json.loads((out / "search.json").read_text()) == found


def test_a_given_teacher_decides_the_size_and_where_copies_start(pairs, tmp_path, capsys, monkeypatch) -> None:
    """At a learning rate of almost nothing a copy stays where it started."""
    torch.manual_seed(0)
    teacher = ESDNet(replace(RELEASED, dim=4, encoder_blocks=(1, 2, 1))).eval()
    path, out = tmp_path / "teacher.pt", tmp_path / "out"
    save_checkpoint(path, teacher)
    flags = [*DATA, str(pairs), "--out", str(out), "--teacher", str(path), "--steps", "1", "--seeds", "0"]
    name = "ON/OFF, static gains, copied weights"
    assert main([*flags, "--variants", name, "--lr", "1e-7", "--precision", "bf16"]) == 0
    text = capsys.readouterr().out
    assert "±" not in text  # one seed has no spread
    assert "dim 4, 1+2+1+1+1+1 blocks" in text
    assert "a teacher, teacher.pt." in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ON")] == [name]
    last = out / "on_off_static_gains_copied_weights_0" / "last.pt"
    assert read_checkpoint(last)["extra"]["training"]["precision"] == "bf16"
    copied = load_checkpoint(last)
    weights = [network.encoder_level2[1].residual[4].weight for network in (copied, teacher)]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)
    assert not (out / "teacher").exists()


@pytest.mark.slow
def test_annealed_shortcuts_change_what_is_trained(pairs, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        spike_driven,
        "VARIANTS",
        {"plain": Variant(SPIKE_DRIVEN), "annealed": Variant(SPIKE_DRIVEN, anneals_shortcuts=True)},
    )
    flags = [*DATA, str(pairs), "--out", str(tmp_path / "out"), "--teacher-steps", "1", "--steps", "3", "--seeds", "0"]
    assert main([*flags, "--variants", "plain", "annealed"]) == 0
    plain, annealed = (load_checkpoint(tmp_path / "out" / f"{name}_0" / "last.pt") for name in ("plain", "annealed"))
    weights = [network.encoder_level1[0].shortcut[0].weight for network in (plain, annealed)]
    assert not torch.equal(*weights)


def test_a_teacher_that_is_not_a_released_network_is_refused(spike_driven_model, pairs, tmp_path, capsys) -> None:
    save_checkpoint(tmp_path / "t.pt", spike_driven_model)
    flags = [*DATA, str(pairs), "--out", str(tmp_path / "out"), "--teacher", str(tmp_path / "t.pt")]
    assert main(flags) == 2
    assert "t.pt: a teacher is a released network, found ESDNetConfig(" in capsys.readouterr().err


def test_without_photos_it_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.strip() == "error: synthetic rain needs a folder of clean photos"
