"""A trained network as data: a typed layer graph of any network, and the formats that are written from it.

Public: `read` gives the layer graph, a `Network`, of a module or a file; `to_nir`, `to_onnx` and `to_lava_dl` write
one that was run before it appears. They raise `UserError`, of one line, for what they cannot use, and `CheckFailed`
where what was written does not compute what it must. All else in here may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esdnet.command.public import publish

if TYPE_CHECKING:
    from esdnet.command.errors import CheckFailed, UserError
    from export.api import read, to_lava_dl, to_nir, to_onnx
    from export.graph.network import Network

__all__ = ["CheckFailed", "Network", "UserError", "read", "to_lava_dl", "to_nir", "to_onnx"]

publish(
    __name__,
    {
        "CheckFailed": "esdnet.command.errors:CheckFailed",
        "Network": "export.graph.network:Network",
        "UserError": "esdnet.command.errors:UserError",
        "read": "export.api:read",
        "to_lava_dl": "export.api:to_lava_dl",
        "to_nir": "export.api:to_nir",
        "to_onnx": "export.api:to_onnx",
    },
)
