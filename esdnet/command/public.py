"""What a package gives its users: names whose modules are imported when they are first asked for, as PEP 562 has it.

In: the package, and where each of its public names is. A function may have the name of a module of the package
(`esdnet.derain`, and the command `python -m esdnet.derain`): the package's attribute is always the function.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any


def publish(package: str, places: dict[str, str]) -> None:
    """Give `package` attributes by name, each from 'module:name'; called by its `__init__`."""

    class Public(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in places:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            module, _, there = places[name].partition(":")
            return getattr(import_module(module), there)

        def __setattr__(self, name: str, value: Any) -> None:
            """Python binds a module that it has imported to its package; but not over a public name."""
            if not (name in places and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> Iterable[str]:
            return sorted(places)

    sys.modules[package].__class__ = Public
