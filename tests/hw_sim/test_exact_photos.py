"""energy.py on a photo in tiles that are exact: the report and the picture of the whole, whatever the tiles."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from export.graph.counting import OF_VALUES
from hw_sim.energy import main
from tests.gated import every_kind, gated_model, rainy


@pytest.fixture(scope="module")
def files(tmp_path_factory, spike_driven_model):
    """A checkpoint without image-wide nodes, and a photo whose sides are no multiples of 4."""
    folder = tmp_path_factory.mktemp("photos")
    save_checkpoint(folder / "local.pt", spike_driven_model)
    pixels = np.random.default_rng(0).integers(0, 256, (42, 62, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")
    return folder


def run(files: Path, *options: str) -> tuple[dict, np.ndarray]:
    """The report, without what may differ, and the derained picture."""
    flags = ["--checkpoint", str(files / "local.pt"), "--device", "cpu", "--json", str(files / "e.json")]
    flags += ["--save-image", str(files / "o.png")]
    assert main(["--image", str(files / "x.png"), *flags, *options]) == 0
    report = json.loads((files / "e.json").read_text())
    del report["seconds"], report["assumptions"]  # which say what it was computed in
    return report, np.asarray(Image.open(files / "o.png"))


def without(report: dict, *names: str) -> dict:
    """The same without counts of these names, wherever they are."""
    if isinstance(report, dict):
        return {key: without(value, *names) for key, value in report.items() if key not in names}
    return [without(item, *names) for item in report] if isinstance(report, list) else report


CASES = [
    ("float64", "simulator", "32"),
    pytest.param("int8", "simulator", "32", marks=pytest.mark.slow),
    pytest.param("float64", "simulator", "12", marks=pytest.mark.slow),
    pytest.param("int8", "simulator", "12", marks=pytest.mark.slow),
    pytest.param("float64", "torch", "32", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("precision", "backend", "tile"), CASES)
def test_the_report_is_that_of_the_whole_to_the_last_operation(files, capsys, precision, backend, tile):
    """Whether a sum is exactly 0 hangs on its order, so that values that are not 0 are left out."""
    options = ("--precision", precision, "--backend", backend)
    whole, expected = run(files, *options)
    assert "computed_in" not in whole
    capsys.readouterr()
    report, output = run(files, *options, "--tile", tile)
    assert np.array_equal(output, expected)
    computed = report.pop("computed_in")
    assert without(report, *OF_VALUES) == without(whole, *OF_VALUES)
    assert whole["totals"]["spikes"] > 10_000
    assert computed["halo"] == [40, 40, 36, 36]
    assert computed["tile"] == int(tile)
    assert (
        1
        < computed["overhead"]
        == pytest.approx(computed["totals"]["dense_taps"] / whole["totals"]["dense_taps"], rel=0.1)
    )
    said = capsys.readouterr()
    assert f"tiles of {tile} and the 40 pixels around: the network sees there what it sees in the whole" in said.err
    assert f"it was computed in {computed['tiles']} tiles of up to {tile} px with a halo of 40 px" in " ".join(
        said.out.split()
    )


@pytest.mark.slow
@every_kind
def test_of_a_gated_network_too_where_it_has_a_halo(files, capsys, kind):
    """A learnt gate is found tile by tile as in the whole, and counted once; a rain mask sees less in a tile, and it is
    said."""
    save_checkpoint(files / "gated.pt", gated_model(kind))
    save_image(files / "rainy.png", rainy(132, 20).transpose(1, 2, 0))
    gated = ("--checkpoint", str(files / "gated.pt"), "--image", str(files / "rainy.png"))
    whole, expected = run(files, *gated, "--precision", "float64", "--tile", "0")
    assert 0.02 < whole["gates_open"]["gate.level1"] < 0.98
    report, output = run(files, *gated, "--precision", "float64", "--tile", "20")
    said = capsys.readouterr().err
    if kind == "learnt":
        assert report.pop("computed_in")["halo"] == [56, 56, 48, 48]
        assert without(report, *OF_VALUES) == without(whole, *OF_VALUES)
        assert np.array_equal(output, expected)
        maps = maps_of(files, *gated, "--tile", "20")
        assert maps == maps_of(files, *gated, "--tile", "0")
        assert list(maps["layers"])[:3] == ["gate.level1", "gate.level2", "gate.level3"]
    else:
        assert report["tiles"] == 11
        assert "the result is not that of the whole image (gate.mask and 1 more nodes look at all of it)" in said


@pytest.mark.slow
def test_the_page_shows_the_spikes_of_the_whole(files):
    """Where neurons fired, layer by layer and step by step, put together of the cores of tiles."""
    maps = [maps_of(files, *options) for options in ((), ("--tile", "32"))]
    assert maps[0] == maps[1]
    assert len(maps[0]["layers"]) > 20


def maps_of(files: Path, *options: str) -> dict:
    page = files / "page.html"
    run(files, "--precision", "float64", "--html", str(page), *options)
    (data,) = re.findall(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)["spikes"]


def test_an_overlap_asks_for_blended_tiles(files):
    report, _ = run(files, "--tile", "32", "--overlap", "8")
    assert (report["tile"], report["overlap"], report["executed_size"]) == (32, 8, [32, 32])
    assert report["tiles"] == 6
    assert "computed_in" not in report


@pytest.mark.slow
def test_a_photo_is_shared_among_processes(files):
    whole, expected = run(files, "--precision", "int8")
    for workers in ("2", "3"):
        report, output = run(files, "--precision", "int8", "--tile", "32", "--workers", workers)
        assert np.array_equal(output, expected)
        assert report.pop("computed_in")["tiles"] == 4
        assert report == whole
