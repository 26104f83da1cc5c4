"""What a command says of itself: the name that it was called by, and the optional software that it needs.

In: how Python was started, what is installed. Out: a name for --help; a UserError in one line before any work begins.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from esdnet.command.errors import UserError

PACKAGE = "esdnet-deploy"
EXTRAS = {  # extra of pyproject.toml -> the modules that it brings
    "cluster": ("distributed",),
    "dataframe": ("pandas",),
    "lava": ("lava.magma", "lava.lib.dl"),
    "onnx": ("onnx", "onnxruntime"),
    "report": ("jinja2", "matplotlib"),
    "train": ("tensorboard",),
}


def program_name() -> str:
    """The command as the user typed it: `esdnet-derain`, `python -m esdnet.derain` or `python export/to_nir.py`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is not None:
        return f"python -m {module.name.removesuffix('.__main__')}"
    called = Path(sys.argv[0])
    return f"python {called}" if called.suffix == ".py" else called.name


def require_extra(extra: str, what: str) -> None:
    """UserError, with the command that installs it, unless all modules of an extra are there; imports none."""
    missing = [name for name in EXTRAS[extra] if not _is_installed(name)]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}, not installed here: pip install '{PACKAGE}[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False
