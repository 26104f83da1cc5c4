from __future__ import annotations

import json

import pytest

from hw_sim.agreement.equal_counts import main


def report(path, backend="simulator", acs=7, name="conv"):
    counts = {"spikes": 1, "acs": acs, "macs": 3, "elementwise": 4}
    content = {"backend": backend, "precision": "float64", "totals": counts, "layers": [{"name": name, **counts}]}
    path.write_text(json.dumps(content))
    return str(path)


def test_equal_reports(tmp_path, capsys):
    assert main([report(tmp_path / "a.json"), report(tmp_path / "b.json", backend="lava")]) == 0
    assert "1 of 1 layers have equal counts" in capsys.readouterr().out


def test_the_first_layer_that_differs_is_named(tmp_path, capsys):
    assert main([report(tmp_path / "a.json"), report(tmp_path / "b.json", acs=8)]) == 1
    assert "the first that differs: conv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as an energy report"),
        ("[]", "not a report of one image"),
        ("{}", "not a report of one image"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "b.json").write_text(text)
    assert main([report(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert message in capsys.readouterr().err


def test_different_networks_are_refused(tmp_path, capsys):
    assert main([report(tmp_path / "a.json"), report(tmp_path / "b.json", name="other")]) == 2
    assert "not the same network" in capsys.readouterr().err
