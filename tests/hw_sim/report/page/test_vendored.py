"""The charting library that ships is the one that its page, the report's footer and its licences are about."""

from __future__ import annotations

import hashlib
import re

from hw_sim.report.page.write import FOLDER

ECHARTS = FOLDER / "assets" / "echarts"


def test_the_library_is_the_one_whose_hash_and_version_are_stated():
    stated = (ECHARTS / "README.md").read_text(encoding="utf-8")
    script = (ECHARTS / "echarts.min.js").read_bytes()
    assert f"{hashlib.sha256(script).hexdigest()}  echarts.min.js" in stated
    (version,) = re.findall(rb't\.version="([\d.]+)"', script)
    assert f"# Apache ECharts {version.decode()}\n" in stated
    assert f"Apache ECharts {version.decode()} " in (FOLDER / "templates" / "base.html.j2").read_text(encoding="utf-8")


def test_its_licences_are_with_it():
    said = {path.name: path.read_text(encoding="utf-8") for path in ECHARTS.glob("*") if path.suffix != ".js"}
    assert "Apache License" in said["LICENSE"]
    assert "The Apache Software Foundation" in said["NOTICE"]
    assert "BSD 3-Clause" in said["LICENSE-zrender"]
    assert "Mike Bostock" in said["LICENSE-d3"]
    assert "Microsoft" in said["LICENSE-tslib"]


def test_no_script_or_style_ends_the_element_that_it_is_in():
    for path in [*FOLDER.rglob("*.js"), *FOLDER.rglob("*.css")]:
        assert not re.search("</(script|style)", path.read_text(encoding="utf-8"), re.IGNORECASE), path
