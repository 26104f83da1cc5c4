"""The page docs/benchmarks.md. In: what run.py measured. Out: Markdown, in which no number is this file's own."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import BARE, COUNTED, STEPPED

COMMAND = "python -m benchmarks.run --json benchmarks.json --markdown docs/benchmarks.md [--peers PYTHON]"
NEXT = "## Threads"  # where what others wrote begins, which stays
TIME_GOAL, MEMORY_GOAL = 1.15, 1.2


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    where = results["where"]
    parts = [
        "# Benchmarks",
        f"Written by `{COMMAND}`; every number before the section on threads is of one such run.",
        f"{where['checkpoint']} on {where['cpu']}, {where['cores']} cores, torch {where['torch']} with"
        f" {where['threads']} thread(s), Python {where['python']}; medians of {where['rounds']} rounds. Load of the"
        f" machine when the run began: {where['load_before']:.1f} (other work on its cores makes wall times longer;"
        " ratios are taken within a round, and CPU times are stated beside them).",
        *[part for size, found in results["compare"].items() for part in _compare(size, found)],
        *_sizes(results["sizes"]),
        *_steps(results["steps"]),
        *(_peers(results["peers"]) if "peers" in results else []),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(times: dict[str, Any], added: dict[str, float]) -> list[list[str]]:
    base = added.get(BARE)
    return [
        [
            name,
            f"{one['seconds']:.3f}",
            f"{one['ratio']:.2f}",
            f"{one['cpu_seconds']:.3f}",
            f"{one['cpu_ratio']:.2f}",
            f"{added[name]:.0f}" if name in added else "",
            f"{added[name] / base:.2f}" if base and name in added else "",
        ]
        for name, one in times.items()
    ]


def _compare(size: str, found: dict[str, Any]) -> list[str]:
    times, added = found["times"], found["added_mb"]
    head = ["float32", "s", "ratio", "CPU s", "ratio", "memory, MB", "ratio"]
    time_ratio, memory_ratio = times[COUNTED]["ratio"], added[COUNTED] / added[BARE]
    stepped = times[COUNTED]["ratio"] / times[STEPPED]["ratio"]
    return [
        f"## One image of {size} x {size}",
        "The same network, the same image. The first row is the yardstick of every ratio.",
        _table(head, _times(times, added)),
        f"Simulating and counting every operation takes {time_ratio:.2f} times as long as the bare network"
        f" ({times[COUNTED]['cpu_ratio']:.2f} in CPU time; the goal is at most {TIME_GOAL})"
        f" and {memory_ratio:.2f} times its memory (goal: at most {MEMORY_GOAL});"
        f" {stepped:.2f} times as long as snnTorch step by step (goal: at most 1)."
        " Memory is what one image adds to the peak of a fresh process that has loaded everything.",
    ]


def _sizes(found: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{size} x {size}", f"{one['seconds']:.2f}", f"{one['cpu_seconds']:.2f}", f"{one['added_mb']:.0f}",
            f"{one['firing_rate']:.1%}", f"{one['spikes']:,}", f"{one['acs'] / 1e9:.3f}", f"{one['macs'] / 1e9:.3f}",
            f"{one['energy_uj']:,.0f}",
        ]
        for size, one in found.items()
    ]  # fmt: skip
    head = ["image", "s", "CPU s", "memory, MB", "firing rate", "spikes", "G ACs", "G MACs", "uJ, prices of the paper"]
    text = (
        "Simulate and count, the whole image at once; the photo that ships, mirrored at its borders where it is too"
        " small. Operations grow with the pixels; the firing rate depends on what is in the picture."
    )
    return ["## Against image size", text, _table(head, rows)]


def _steps(found: dict[str, Any]) -> list[str]:
    rows = [
        [
            steps, f"{one['seconds']:.2f}", f"{one['cpu_seconds']:.2f}", f"{one['firing_rate']:.1%}",
            f"{one['acs'] / 1e9:.3f}", f"{one['macs'] / 1e9:.3f}", f"{one['energy_uj']:,.0f}",
        ]
        for steps, one in found.items()
    ]  # fmt: skip
    head = ["T", "s", "CPU s", "firing rate", "G ACs", "G MACs", "uJ, prices of the paper"]
    text = (
        "128 x 128, the same architecture with random weights (the attention over time has T inputs, so a trained"
        " network has one T), batch norms fitted to the photo."
    )
    return ["## Against the number of steps", text, _table(head, rows)]


def _peers(found: dict[str, Any]) -> list[str]:
    ours = found["ours"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    rows = [["this project's simulator", f"{ours['acs']:,}", f"{ours['macs']:,}"]]
    for name, counted in found["counted"].items():
        if "missing" in counted:
            rows.append([name, "not run", counted["missing"]])
            continue
        acs = counted.get("Effective_ACs", counted.get("SynOpCounter"))
        macs = counted.get("Effective_MACs", counted.get("MACCounter"))
        rows.append([name, f"{acs:,}", "" if macs is None else f"{macs:,}"])
    notes = (
        "ACs: accumulations of spikes in convolutions, all three the same to the last spike where they are equal above"
        " (float64: NeuroBench adds up its totals in the network's own precision, and float32 is exact only to 2^24)."
        " MACs are not meant to be equal: NeuroBench leaves out operands that happen to be zero and the matrices of the"
        " attention, which are no modules called; spikingjelly's MACCounter takes taps on padding for work and counts"
        " element-wise products too. Its ACCounter adds element-wise additions to the ACs"
        f" ({found['counted'].get('spikingjelly SynOp + AC + MAC', {}).get('ACCounter', 0):,})."
    )
    timed = [
        [name, f"{one['seconds']:.3f}", f"{one['ratio']:.2f}", f"{one['cpu_seconds']:.3f}", f"{one['cpu_ratio']:.2f}"]
        for name, one in found["times"].items()
    ]
    return [
        "## Other counters, 64 x 64",
        f"The same folded network under {versions}, in one interpreter.",
        _table(["counted in float64", "ACs", "MACs"], rows),
        notes,
        _table(["float32", "s", "ratio", "CPU s", "ratio"], timed),
    ]
