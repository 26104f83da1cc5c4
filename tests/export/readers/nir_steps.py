"""An independent interpreter of NIR: NumPy float64, one step after the other, every operation counted by brute force.

It shares no code with the project. In: a nir.NIRGraph (of nodes that nir itself read or made) and frames (T, *shape).
Out: what each node gave at each step, and its spikes, ACs, MACs and MACs on values other than 0.

The dynamics are NIR's differential equations (Pedersen et al. 2024, table 1) by forward Euler, in norse's order of
operations. IF and I add r x at each step: their importers (norse, sinabs, snnTorch) know no dt there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

NEURONS = (nir.IF, nir.LIF, nir.CubaLIF)
STATEFUL = (*NEURONS, nir.LI, nir.I, nir.CubaLI)


@dataclass
class Counted:
    """What one node did in all steps. `value`: (T, *shape)."""

    value: list[Any] = field(default_factory=list)
    spikes: int = 0
    acs: int = 0
    macs: int = 0
    effective: int = 0


def run(
    graph: nir.NIRGraph, frames: np.ndarray, dt: float = 1e-4, subtract: bool = False, spikes_in: bool | None = None
) -> dict[str, Counted]:
    """Every node of a graph (those of nested graphs as outer.inner) over all frames (T, *shape of the Input)."""
    nodes, edges = flatten(graph)
    waiting = {name for name, node in nodes.items() if isinstance(node, nir.Delay) and np.min(node.delay) > dt / 2}
    late = late_edges(set(nodes), [edge for edge in edges if edge[1] not in waiting])
    sources = {name: [pre for pre, post in edges if post == name] for name in nodes}
    kinds = _kinds(nodes, sources, frames.dtype == bool if spikes_in is None else spikes_in)
    found = {name: Counted() for name in nodes}
    states: dict[str, dict[str, Any]] = {name: {} for name in nodes}
    for step, frame in enumerate(frames):
        done = {name: _delayed(nodes[name], states[name], step, dt) for name in waiting}

        def read(name: str, step: int = step, done: dict[str, Any] = done) -> Any:
            total = None
            for pre in sources[name]:
                is_late = (pre, name) in late
                value = done[pre] if not is_late else found[pre].value[step - 1] if step else 0.0
                total = value if total is None else total + value
            return total

        while len(done) < len(nodes):
            ready = [
                name
                for name in nodes
                if name not in done and all(pre in done or (pre, name) in late for pre in sources[name])
            ]
            assert ready, "a cycle without a late edge"
            for name in ready:
                x = read(name) if sources[name] else frame.astype(float)
                operand = _operand(kinds, sources[name]) if sources[name] else kinds[name]
                done[name] = _step(nodes[name], x, operand, states[name], found[name], dt, subtract)
        for name in waiting:
            states[name].setdefault("past", []).append(read(name))
        for name, value in done.items():
            found[name].value.append(value)
    return found


def flatten(graph: nir.NIRGraph, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """All nodes by full name, and the edges between them; an edge to a nested graph is one to its Input."""
    nodes, edges, enters, leaves = {}, [], {}, {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            inner, between = flatten(node, f"{prefix}{name}.")
            nodes.update(inner)
            edges += between
            (enters[name],) = [f"{prefix}{name}.{key}" for key, value in node.nodes.items() if type(value) is nir.Input]
            (leaves[name],) = [
                f"{prefix}{name}.{key}" for key, value in node.nodes.items() if type(value) is nir.Output
            ]
        else:
            nodes[prefix + name] = node
    edges += [(leaves.get(pre, prefix + pre), enters.get(post, prefix + post)) for pre, post in graph.edges]
    return nodes, edges


def late_edges(names: set[str], edges: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of each cycle, the edges into its entries (nodes that also read from outside the cycle) that come from inside it;
    then the same of the cycles that remain. By transitive closure."""
    order = sorted(names)
    index = {name: place for place, name in enumerate(order)}
    left, late = list(edges), set()
    while True:
        reach = np.zeros((len(order), len(order)), bool)
        for pre, post in left:
            reach[index[pre], index[post]] = True
        for via in range(len(order)):
            reach |= reach[:, [via]] & reach[[via], :]
        mutual = reach & reach.T
        inside = [(pre, post) for pre, post in left if mutual[index[pre], index[post]]]
        if not inside:
            return late
        outside = {post for pre, post in left if not mutual[index[pre], index[post]]}
        entered = {edge for edge in inside if edge[1] in outside}
        late |= entered
        left = [edge for edge in left if edge not in late]


def _kinds(nodes: dict[str, Any], sources: dict[str, list[str]], spikes_in: bool) -> dict[str, str]:
    """spike, graded or analog, by producer. Optimistic: a cycle is spikes unless something in it is not."""
    kinds = dict.fromkeys(nodes, "spike")
    for _ in range(2 * len(nodes)):
        for name, node in nodes.items():
            operand = _operand(kinds, sources[name]) if sources[name] else ""
            if not operand:
                kinds[name] = "spike" if spikes_in else "analog"
            elif isinstance(node, (*NEURONS, nir.Threshold)):
                kinds[name] = "spike"
            elif isinstance(node, nir.SumPool2d):
                kinds[name] = "analog" if operand == "analog" else "graded"
            elif isinstance(node, (nir.Input, nir.Output, nir.Flatten, nir.Delay)):
                kinds[name] = operand
            else:
                kinds[name] = "analog"
    return kinds


def _operand(kinds: dict[str, str], sources: list[str]) -> str:
    found = {kinds[name] for name in sources}
    if len(sources) == 1:
        return found.pop()
    return "analog" if "analog" in found else "graded"


def _step(
    node: Any, x: np.ndarray, operand: str, state: dict[str, Any], found: Counted, dt: float, subtract: bool
) -> Any:
    if isinstance(node, (nir.Input, nir.Output)):
        return x
    if isinstance(node, (nir.Affine, nir.Linear)):
        weight = node.weight.astype(float)
        _count(found, operand, x, np.full(x.shape, weight.shape[0]))
        return weight @ x + (node.bias if isinstance(node, nir.Affine) else 0)
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        return _convolve(node, x, operand, found)
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        return _pool(node, x)
    if isinstance(node, nir.Flatten):
        return x.reshape(flat_shape(node, x.shape))
    if isinstance(node, nir.Threshold):
        fired = x > node.threshold
        found.spikes += int(fired.sum())
        return fired.astype(float)
    if isinstance(node, nir.Delay):
        state.setdefault("past", []).append(x)
        return _delayed(node, state, len(state["past"]) - 1, dt)
    if isinstance(node, STATEFUL):
        return _integrate(node, x, state, found, dt, subtract)
    raise NotImplementedError(type(node).__name__)


def _count(found: Counted, operand: str, x: np.ndarray, fan_out: np.ndarray) -> None:
    if operand == "spike":
        assert set(np.unique(x)) <= {0.0, 1.0}
        found.acs += int((x * fan_out).sum())
    else:
        found.macs += int(fan_out.sum())
        found.effective += int(fan_out[x != 0].sum())


def _geometry(node: Any, sides: tuple[int, ...]) -> tuple[list[int], ...]:
    kernel = [int(side) for side in node.weight.shape[2:]]
    stride, dilation = (
        [int(number) for number in np.broadcast_to(value, len(sides))] for value in (node.stride, node.dilation)
    )
    if isinstance(node.padding, str):
        assert node.padding == "valid" or all((k - 1) * d % 2 == 0 for k, d in zip(kernel, dilation, strict=True))
        padding = [0 if node.padding == "valid" else (k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
    else:
        padding = [int(number) for number in np.broadcast_to(node.padding, len(sides))]
    return kernel, stride, padding, dilation


def _convolve(node: Any, x: np.ndarray, operand: str, found: Counted) -> np.ndarray:
    """Tap by tap; a tap on the padding is no work."""
    weight = node.weight.astype(float)
    if weight.ndim == 3:
        x, weight = x[:, None], weight[:, :, None]
    sides = x.shape[1:]
    kernel, stride, padding, dilation = _geometry(node, sides[-len(node.weight.shape[2:]) :])
    if node.weight.ndim == 3:
        kernel, stride, padding, dilation = [1, *kernel], [1, *stride], [0, *padding], [1, *dilation]
    size = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(sides, kernel, stride, padding, dilation, strict=True)
    ]
    groups, fan_out = int(node.groups), np.zeros(x.shape, int)
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    result = np.zeros((weight.shape[0], *size))
    for row in range(size[0]):
        for column in range(size[1]):
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    h = row * stride[0] - padding[0] + i * dilation[0]
                    w = column * stride[1] - padding[1] + j * dilation[1]
                    if not (0 <= h < sides[0] and 0 <= w < sides[1]):
                        continue
                    fan_out[:, h, w] += outputs
                    for group in range(groups):
                        out = slice(group * outputs, (group + 1) * outputs)
                        result[out, row, column] += (
                            weight[out, :, i, j] @ x[group * inputs : (group + 1) * inputs, h, w]
                        )
    _count(found, operand, x, fan_out)
    result = result + node.bias.astype(float)[:, None, None]
    return result[:, 0] if node.weight.ndim == 3 else result


def _pool(node: Any, x: np.ndarray) -> np.ndarray:
    """Padding is counted as zeros by the average, as torch does."""
    kernel, stride, padding = (
        [int(number) for number in np.broadcast_to(value, 2)] for value in (node.kernel_size, node.stride, node.padding)
    )
    padded = np.pad(x, ((0, 0), *((side, side) for side in padding)))
    size = [(s - k) // t + 1 for s, k, t in zip(padded.shape[1:], kernel, stride, strict=True)]
    result = np.zeros((x.shape[0], *size))
    for row in range(size[0]):
        for column in range(size[1]):
            h, w = row * stride[0], column * stride[1]
            result[:, row, column] = padded[:, h : h + kernel[0], w : w + kernel[1]].sum((1, 2))
    return result / np.prod(kernel) if isinstance(node, nir.AvgPool2d) else result


def flat_shape(node: nir.Flatten, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without a batch axis. Files written before input_type counted it; theirs begin at 1."""
    start, end = int(node.start_dim), int(node.end_dim) % len(shape)
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def _delayed(node: nir.Delay, state: dict[str, Any], now: int, dt: float) -> np.ndarray:
    """Every element as it was, element by element; zero before the first step."""
    result = np.zeros(node.delay.shape)
    for place in np.ndindex(result.shape):
        when = now - round(float(node.delay[place]) / dt)
        result[place] = state["past"][when][place] if when >= 0 else 0.0
    return result


def _integrate(node: Any, x: np.ndarray, state: dict[str, Any], found: Counted, dt: float, subtract: bool) -> Any:
    p = {key: np.asarray(value, float) for key, value in vars(node).items() if isinstance(value, np.ndarray)}
    leak = p.get("v_leak", np.zeros(x.shape))
    v = state.get("v", np.zeros(x.shape) + leak)
    if isinstance(node, (nir.CubaLIF, nir.CubaLI)):
        current = state.get("i", np.zeros(x.shape))
        current = current + dt * (1 / p["tau_syn"]) * (p["w_in"] * x - current)
        state["i"] = x = current
    if isinstance(node, (nir.IF, nir.I)):
        v = v + p["r"] * x
    else:
        tau = p["tau_mem"] if "tau_mem" in p else p["tau"]
        v = v + dt * (1 / tau) * (p["r"] * x + leak - v)
    if not isinstance(node, NEURONS):
        state["v"] = v
        return v
    fired = v > p["v_threshold"]
    found.spikes += int(fired.sum())
    state["v"] = np.where(fired, v - p["v_threshold"] if subtract else p["v_reset"], v)
    return fired.astype(float)
