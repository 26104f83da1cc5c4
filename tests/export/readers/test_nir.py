"""NIR files that others wrote: read, run, and equal in every spike, operation and output to what is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.readers.nir import read_nir
from hw_sim.backends.simulator import run_sequence
from tests.export.readers import nir_steps

EXTERNAL = Path(__file__).resolve().parents[4] / "shared" / "external" / "nir"  # beside the repository, if there is one
needs_external = pytest.mark.skipif(not EXTERNAL.is_dir(), reason="the public .nir files are not beside the repository")
PUBLIC = ["lif_norse", "cnn_sinabs", "scnn_mnist_old_encoding", "braille_noDelay_bias_zero"]
