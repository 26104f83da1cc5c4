"""The layer graph as hardware runs it: simulators, exact operation counts and their price.

Public: `count` runs any torch module and counts every spike, AC and MAC of it; it returns a `Report`. `UserError`, of
one line, is raised for what cannot be counted. All else in here may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esdnet.command.public import publish

if TYPE_CHECKING:
    from esdnet.command.errors import UserError
    from hw_sim.counter.report import Report
    from hw_sim.counter.torch_counter import count

__all__ = ["Report", "UserError", "count"]

publish(
    __name__,
    {
        "Report": "hw_sim.counter.report:Report",
        "UserError": "esdnet.command.errors:UserError",
        "count": "hw_sim.counter.torch_counter:count",
    },
)
