"""Where the photos lie that some tests look at."""

from __future__ import annotations

from pathlib import Path

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"  # beside the repository, where there is one
