"""`make docs`: the site builds without a warning, shows what GitHub shows, and has the API whole."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SHOWN = {"bullet_list_open": "<ul", "ordered_list_open": "<ol", "list_item_open": "<li", "table_open": "<table",
         "tr_open": "<tr", "fence": "<pre", "code_block": "<pre"}  # fmt: skip
WRITTEN = ["api.md"]  # by mkdocstrings


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Not --quiet: with it --strict sees no warning."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def article(site: Path, page: str) -> str:
    found = re.search(r"<article.*?</article>", (site / page).with_suffix(".html").read_text(), re.DOTALL)
    assert found is not None
    return found[0]


def test_every_page_has_as_many_lists_tables_and_blocks_as_on_github(site):
    """A list that follows its sentence without an empty line is one there, and in Python-Markdown none."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.name not in WRITTEN:
            expected = Counter(SHOWN[token.type] for token in read(page) if token.type in SHOWN)
            shown = Counter(re.findall(r"<(?:ul|ol|li|table|tr|pre)(?=[ >])", article(site, page.name)))
            assert shown == expected, page.name


def test_nothing_is_asked_of_another_host(site):
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?://[^"]*"', page.read_text()), page


def test_what_is_public_is_in_the_api_and_nothing_else(site):
    documented = [pkgutil.resolve_name(name) for name in re.findall(r"^::: (\S+)", API, re.MULTILINE)]
    public = {name: importlib.import_module(name) for name in ("esdnet", "export", "hw_sim")}
    named = [getattr(package, name) for package in public.values() for name in package.__all__]
    assert [thing for thing in named if thing not in documented] == []
    text = re.sub("<[^>]+>", "", article(site, "api.md"))
    for thing in documented:
        start = " ".join((thing.__doc__ or "").split()[:4]).replace("`", "")
        assert start in " ".join(text.split()), thing


@pytest.mark.parametrize(
    ("page", "text", "message"),
    [
        ("index.md", "[a](nowhere.md)", "nowhere.md"),
        ("index.md", "[a](energy.md#nowhere)", "#nowhere"),
        ("api.md", "::: esdnet.nowhere", "esdnet.nowhere"),
        ("unlisted.md", "# A page without a place", "unlisted.md"),
    ],
)
@pytest.mark.slow
def test_a_fault_ends_the_build_and_is_named(page, text, message, tmp_path):
    for name in ("esdnet", "export", "hw_sim"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / page).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert message in done.stderr + done.stdout
