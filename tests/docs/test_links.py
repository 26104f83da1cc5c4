"""Every link of every page leads to a file, and to a heading in it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, read


def anchors(page: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    tokens = read(page)
    titles = [inline.content for opening, inline in pairwise(tokens) if opening.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    links = [str(token.attrGet("href") or token.attrGet("src") or "") for token in read(page)]
    found = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if link and not re.match(r"https?://", link):
            if not target.exists():
                found.append(f"{link}: no such file")
            elif anchor and anchor not in anchors(target):
                found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    assert broken(page) == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b) [c](other.md) ![d](d.png) [e](https://example.org/x)\n")
    assert broken(page) == ["#b: no such heading", "other.md: no such file", "d.png: no such file"]


def test_there_are_links():
    assert sum(bool(token.attrGet("href")) for page in PAGES for token in read(page)) > 150
    assert ROOT / "docs" / "energy.md" in PAGES
