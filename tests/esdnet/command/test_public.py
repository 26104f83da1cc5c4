"""Packages as their users see them, each in a fresh interpreter: what is public, when it is imported, what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ["esdnet", "export", "hw_sim"]
SAME_NAME = [
    ("esdnet", "derain"),
    ("export", "to_nir"),
    ("export", "to_onnx"),
    ("export", "to_lava_dl"),
]  # functions, and modules that are commands


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_imported_at_once_and_lists_what_is_public(package):
    heavy = "sorted({'torch', 'numpy', 'PIL'} & sys.modules.keys())"
    assert python(f"import sys, {package} as p; print({heavy}, dir(p) == p.__all__)") == "[] True"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    python(f"import {package} as p; [getattr(p, name) for name in p.__all__]")


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), SAME_NAME)
@pytest.mark.parametrize("first", ["", "from {p}.{n} import main", "import {p}.{n}", "import {p}.{n} as module"])
def test_a_function_with_the_name_of_a_command_is_the_function_whatever_was_imported(package, name, first):
    first = first.format(p=package, n=name)
    shown = python(
        f"{first}\nimport {package}\nfrom {package} import {name}\nprint({name}.__module__, {name} is {package}.{name})"
    )
    assert shown == f"{package}.api True"


def test_what_is_not_public_is_said_to_be_missing():
    import esdnet

    with pytest.raises(AttributeError, match=r"^module 'esdnet' has no attribute 'remove_rain'$"):
        esdnet.remove_rain  # noqa: B018
