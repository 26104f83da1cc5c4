"""What a wheel and a source distribution hold, and what they say of themselves."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.distribution.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = ("esdnet", "export", "hw_sim")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode("utf-8"))


def files_of_the_packages(source: Path) -> set[str]:
    found = (path for package in PACKAGES for path in (source / package).rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix() for path in found}


def test_the_wheel_is_the_three_packages_with_every_file_in_them_and_nothing_else(wheel, source):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_of_the_packages(source)
    assert {"esdnet/sample/rainy.png", "export/targets/loihi/loihi2.toml", "hw_sim/pricing/lists/paper.toml"} <= names
    assert {"esdnet/checkpoints/small_released.pt", "hw_sim/report/page/templates/report.html.j2"} <= names
    assert {"hw_sim/report/page/assets/page.css", "hw_sim/report/page/assets/echarts/echarts.min.js"} <= names
    assert {"hw_sim/report/page/assets/echarts/NOTICE", "hw_sim/report/page/assets/echarts/LICENSE-zrender"} <= names


def test_the_source_distribution_holds_the_packages_and_what_builds_them(sdist, source):
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    written_by_setuptools = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - written_by_setuptools == files_of_the_packages(source) | {"LICENSE", "README.md", "pyproject.toml"}


def test_the_metadata_says_what_the_citation_says(metadata):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (author,) = re.findall(r"^  - name: (.+)$", citation, re.MULTILINE)
    stated = dict(re.findall(r"^(version|license): (.+)$", citation, re.MULTILINE))
    assert (metadata["Author"], metadata["Version"]) == (author, stated["version"])
    assert metadata["License-Expression"] == stated["license"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Keywords"]
    links = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))
    assert links["Authors' code"] in (ROOT / "README.md").read_text(encoding="utf-8")
    assert links["Paper"].startswith("https://arxiv.org/")


def test_the_classifiers_are_the_pythons_that_it_installs_on(metadata):
    allowed = SpecifierSet(metadata["Requires-Python"])
    classified = {entry.rpartition(" ")[2] for entry in metadata.get_all("Classifier") if "Python :: 3." in entry}
    assert classified == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed}


@pytest.mark.parametrize("python", ["3.10", "3.11+"])
def test_the_constraints_pin_every_dependency_to_a_version_that_it_allows(python):
    lines = (ROOT / "constraints" / f"python-{python}.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, list[str]] = {}  # a name may have one per Python
    for line in lines:
        if not line.startswith("#"):
            name, version = line.split(";")[0].split("==")
            pins.setdefault(canonicalize_name(name), []).append(version.strip())
    stated = [
        *PROJECT["dependencies"],
        *(entry for extra in PROJECT["optional-dependencies"].values() for entry in extra),
    ]
    requirements = [Requirement(entry) for entry in stated]
    assert len(requirements) > 25
    for entry in requirements:
        if entry.marker is None or entry.marker.evaluate({"python_version": python.rstrip("+")}):
            versions = pins.get(canonicalize_name(entry.name), [])
            assert versions, f"{entry.name}: not in the constraints of Python {python}"
            assert all(version in entry.specifier for version in versions), f"{entry}: {versions}"
