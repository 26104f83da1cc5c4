"""The pages that people read, their blocks of code, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "esdnet" / "checkpoints").glob("*.md")),
]
COMMAND = re.compile(r"(?:\.venv/bin/)?(?:python (?:-m )?(?:esdnet|export|hw_sim|benchmarks|docs)[./]|esdnet-)[a-z]")


def read(page: Path) -> list[Token]:
    """As GitHub reads it: CommonMark with tables, inline tokens after the block that holds them."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def commands(page: Path, kinds: tuple[str, ...] = ("fence", "code_block")) -> list[str]:
    """Lines of its code that call a command of the house: continued lines joined, remarks beside them left out."""
    code = "\n".join(token.content for token in read(page) if token.type in kinds)
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    found = (re.split(r"\s+#\s|\s{3,}(?=[^\s\-\[])", line.strip())[0].removeprefix("$ ") for line in lines)
    return [line for line in found if COMMAND.match(line)]
