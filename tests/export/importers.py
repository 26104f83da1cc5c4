"""What the modules of other projects' NIR importers need to run in float64."""

from __future__ import annotations

from typing import Any

import torch


def double_inputs(module: Any) -> Any:
    """snnTorch hands spikes on in float32: its matrices and convolutions take them in float64 again."""
    for part in module.modules():
        if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d)):
            part.register_forward_pre_hook(lambda part, values: (values[0].double(),))
    return module
