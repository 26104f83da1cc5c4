"""Design rules per target: what a network must be before it may be exported.

In: the network (as torch modules and as a Network) and the size of its images. Out: nothing, or one DesignRuleError
that lists every violation with the node, what was found, and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from esdnet.command.errors import UserError
from export.graph.network import Network
from export.graph.nodes import NetworkError, gate_of

MAX_LISTED = 20


class DesignRuleError(UserError):
    """A network that a target cannot hold exactly. The first line counts the violations, one line each follows."""


@dataclass(frozen=True)
class Design:
    """What is to be exported: the layer graph, and the size of the images that it is exported for."""

    network: Network
    height: int
    width: int


Rule = Callable[[Design], Iterator[str]]


def enforce(target: str, violations: Sequence[str]) -> None:
    """Raise DesignRuleError with all violations, if there are any."""
    if violations:
        count = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
        listed = [f"  {violation}" for violation in violations[:MAX_LISTED]]
        if len(violations) > MAX_LISTED:
            listed.append(f"  and {len(violations) - MAX_LISTED} more")
        raise DesignRuleError("\n".join([f"{target}: {count} of its design rules:", *listed]))


def find_violations(rules: Sequence[Rule], design: Design) -> list[str]:
    """Every violation of every rule, in the order of the rules, then of the nodes."""
    return [violation for rule in rules for violation in rule(design)]


def refuse_gates(network: Network, target: str) -> None:
    """NetworkError, for a target that has no form for them."""
    for node in network.nodes:
        gate = gate_of(node)
        if gate is not None:
            raise NetworkError(
                f"{target}: {node.name} ({node.kind}): has a gate, {gate}, expected none; run it in the simulator"
            )
