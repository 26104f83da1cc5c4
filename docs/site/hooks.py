"""What `mkdocs build` does beside its own: the model cards that ship with checkpoints are pages of the site too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CHECKPOINTS = Path(__file__).parents[2] / "esdnet" / "checkpoints"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Each card as checkpoints/NAME.md; its links to docs/ lead up by one folder there."""
    for card in sorted(CHECKPOINTS.glob("*.md")):
        text = card.read_text(encoding="utf-8").replace("](../../docs/", "](../")
        files.append(File.generated(config, f"checkpoints/{card.name}", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the cards, as they stand in a checkout, lead to their pages."""
    return markdown.replace("](../esdnet/checkpoints/", "](checkpoints/")
