"""docs/library.md as it stands: its examples print what stands below them, and every public name is on it."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def test_the_examples_print_what_they_say(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    (tmp_path / "docs").symlink_to(PAGE.parent)
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=flags)
    assert found.attempted > 10
    assert not found.failed


@pytest.mark.parametrize("package", ["esdnet", "export", "hw_sim"])
def test_every_function_that_is_public_is_on_the_page(package):
    public = [name for name in import_module(package).__all__ if name.islower()]
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in public if f"`{package}.{name}" not in page and f"`{name}`" not in page] == []
