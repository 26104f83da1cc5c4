"""Price lists: energy per operation from hw_sim/pricing/lists/*.toml, each number with its source and evidence grade.

In: counts of operations. Out: joules, and the operations that the list has no price for (never silently free).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esdnet.command.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "lists"
DEFAULT = "paper"
SYNAPTIC = {"mac": "macs", "ac": "acs", "spike": "spikes", "neuron_update": "neuron_updates"}  # price -> count
ELEMENTWISE = {"add": "adds", "mul": "muls"}
SPIKES_PER_WORD = 32  # bits that travel together


@dataclass(frozen=True)
class Price:
    """Joules per operation, where the number comes from, and how well it is known."""

    energy_j: float
    source: str
    grade: str


@dataclass(frozen=True)
class PriceList:
    """The prices of one source. An operation without a price is not free: `unpriced` tells how many there were."""

    name: str
    title: str
    note: str
    prices: dict[str, Price]

    def energy_j(self, counts: dict[str, int], *, elementwise: bool = False, memory: bool = False) -> float:
        """Energy in joules of MACs, ACs, spikes and neuron updates, on demand with element-wise work and memory words.

        `counts` is NodeCounts.totals(), or a sum of such.
        """
        kinds = dict(SYNAPTIC)
        if elementwise:
            kinds.update(ELEMENTWISE)
        energy = sum(
            self.prices[price].energy_j * counts[count] for price, count in kinds.items() if price in self.prices
        )
        if memory and "memory_word" in self.prices:
            energy += self.prices["memory_word"].energy_j * memory_words(counts)
        return energy

    def prices_elementwise(self) -> bool:
        """True if the list has prices for element-wise additions and multiplications."""
        return all(name in self.prices for name in ELEMENTWISE)

    def prices_memory(self) -> bool:
        """True if the list has a price for a word moved."""
        return "memory_word" in self.prices

    def to_record(self) -> dict[str, float]:
        """Picojoules by operation, as JSON holds them."""
        return {name: price.energy_j * 1e12 for name, price in self.prices.items()}

    def unpriced(self, counts: dict[str, int]) -> dict[str, int]:
        """MACs, ACs and spikes that occurred and have no price in this list."""
        return {
            count: counts[count]
            for price, count in SYNAPTIC.items()
            if price != "neuron_update" and price not in self.prices and counts[count]
        }


def memory_words(counts: dict[str, int]) -> float:
    """Words moved, every operand once per step: weights, membranes, activations, and spikes packed 32 to a word."""
    words = counts["weight_words"] + counts["membrane_words"] + counts["activation_words"]
    return words + counts["spike_bits"] / SPIKES_PER_WORD


def available() -> list[str]:
    """Names of all price lists, the default first."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=lambda name: (name != DEFAULT, name))


def load_prices(name: str) -> PriceList:
    """The list of that name (a file of lists/ beside this one), or of a .toml file of the user's own; or UserError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"price list {name!r} is unknown: expected one of {', '.join(available())}, or a .toml file")
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a price list: {error}") from error
    known = {*SYNAPTIC, *ELEMENTWISE, "memory_word"}
    prices: dict[str, Price] = {}
    for key, entry in content.items():
        if key in ("title", "note"):
            continue
        if key not in known or not isinstance(entry, dict):
            raise UserError(f"{path}: unknown entry {key!r}: expected title, note, {', '.join(sorted(known))}")
        prices[key] = _read_price(path, key, entry)
    return PriceList(path.stem, str(content.get("title", path.stem)), str(content.get("note", "")), prices)


def _read_price(path: Path, key: str, entry: dict[str, Any]) -> Price:
    pj = entry.get("pj")
    if not isinstance(pj, (int, float)) or isinstance(pj, bool) or not 0 <= pj < 1e9:
        raise UserError(f"{path}: [{key}] needs pj, a number of picojoules of at least 0, found {pj!r}")
    for field in ("source", "grade"):
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise UserError(f"{path}: [{key}] needs {field}: every price says where it comes from")
    return Price(float(pj) * 1e-12, entry["source"], entry["grade"])
