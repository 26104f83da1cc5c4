"""NIR files that others wrote, where they lie beside the repository, and quiet for tools that write and read more."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

EXTERNAL = Path(__file__).resolve().parents[4] / "shared" / "external" / "nir"
needs_external = pytest.mark.skipif(not EXTERNAL.is_dir(), reason="the public .nir files are not beside the repository")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Importers and exporters use deprecated functions, print, and log."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
