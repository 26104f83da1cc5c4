"""Docstrings of the house as Markdown: a parameter's line becomes an item of a list, an example a block of code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class HouseDocstrings(griffe.Extension):
    """Rewrites what griffe has read, before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Parameters of a function, attributes of a class."""
        if obj.docstring:
            names = {parameter.name for parameter in getattr(obj, "parameters", [])} | set(obj.members)
            obj.docstring.value = as_markdown(obj.docstring.value, names)


def as_markdown(text: str, names: set[str]) -> str:
    """text: of a docstring, in which "a, b: what they are" begins a line. names: what a and b may be."""
    lines: list[str] = []
    example = False
    for line in text.splitlines():
        if line.startswith(">>>") and not example:
            lines += ["```pycon"]
            example = True
        elif not line.strip() and example:
            lines += ["```"]
            example = False
        lines += [line] if example else _item(line, names)
    return "\n".join([*lines, *(["```"] if example else [])])


def _item(line: str, names: set[str]) -> list[str]:
    parts = re.split("(`[^`]*`)", line)  # a shape is (T, *shape): no emphasis, but in code it stands as it is
    line = "".join(part if code % 2 else part.replace("*", r"\*") for code, part in enumerate(parts))
    head, colon, rest = line.partition(": ")
    said = re.sub(r" \([^)]*\)", "", head).split(", ")
    if not colon or not set(said) <= names:
        return [line]
    return ["", f"- **{head}**: {rest}"]
