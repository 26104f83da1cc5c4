"""Reads energy models from hw_sim/pricing/models/*.toml, or from a file of the user's own, and checks them.

In: a name or a path. Out: EnergyModel. UserError names file, entry, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from esdnet.command.errors import UserError
from hw_sim.pricing.energy import PARTS, Conditions
from hw_sim.pricing.equations import EQUATIONS
from hw_sim.pricing.layer_facts import LayerFacts, make_layer
from hw_sim.pricing.model import GRADES, UNITS, Constant, EnergyModel, OperatingPoint, WorkedExample
from hw_sim.pricing.sram import Sram, read_sram
from hw_sim.pricing.toml_file import read_toml

FOLDER = Path(__file__).parent / "models"
JOULES = {"pJ": 1e-12, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0}  # units of worked examples
_TEXT = ("title", "equation", "question", "scope")
_LISTS = ("prices", "assumes", "not_priced")
_TABLES = ("constants", "choices", "sram", "operating_point", "worked_example")


def available_models() -> list[str]:
    """Names of the models that ship, in alphabetical order: there is no other order among them."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_model(name: str) -> EnergyModel:
    """The model of that name, or of a .toml file of the user's own; UserError otherwise."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"energy model {name!r} is unknown: expected one of {', '.join(available_models())}, or a .toml file"
        )
    return read_model(path.stem, str(path), read_toml(path))


def read_model(name: str, where: str, content: Mapping[str, Any]) -> EnergyModel:
    """The model in a parsed file; `where` stands in front of every complaint."""
    _check_layout(where, content)
    equation = EQUATIONS[content["equation"]]
    constants = _constants(where, content, equation)
    if (content["equation"] == "lemaire2022") != ("sram" in content):
        raise UserError(f"{where}: [sram] belongs to the equation lemaire2022, which needs it")
    return EnergyModel(
        name=name,
        title=str(content["title"]),
        equation=content["equation"],
        question=str(content["question"]),
        scope=str(content["scope"]),
        assumes=tuple(content.get("assumes", ())),
        not_priced=tuple(content.get("not_priced", ())),
        prices=tuple(content["prices"]),
        no_ann=str(content.get("no_ann", "")),
        constants=constants,
        choices=_choices(where, content, getattr(equation, "CHOICES", {})),
        sram=_sram(where, content),
        operating_points=tuple(_operating_point(where, entry) for entry in content.get("operating_point", ())),
        worked_examples=tuple(_worked_example(where, entry, constants) for entry in content.get("worked_example", ())),
    )


def _check_layout(where: str, content: Mapping[str, Any]) -> None:
    odd = sorted(set(content) - {*_TEXT, *_LISTS, *_TABLES, "no_ann"})
    missing = [key for key in (*_TEXT, "prices") if key not in content]
    if odd or missing:
        raise UserError(f"{where}: lacks {missing}, has unknown entries {odd}")
    for key in _TABLES:
        kind, word = (list, "an array of tables") if key in ("operating_point", "worked_example") else (dict, "a table")
        value = content.get(key, kind())
        if not isinstance(value, kind) or (kind is list and not all(isinstance(entry, dict) for entry in value)):
            raise UserError(f"{where}: {key} must be {word}")
    for key in _LISTS:
        if not isinstance(content.get(key, []), list):
            raise UserError(f"{where}: {key} must be a list")
    if content["equation"] not in list(EQUATIONS):
        raise UserError(f"{where}: equation {content['equation']!r}, expected one of {', '.join(EQUATIONS)}")
    if strange := [part for part in content["prices"] if part not in PARTS]:
        raise UserError(f"{where}: prices {strange}, expected some of {', '.join(PARTS)}")


def _number(where: str, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e15:
        raise UserError(f"{where} needs {key}, a number of at least 0, found {value!r}")
    return float(value)


def _source_and_grade(where: str, entry: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(entry.get("source"), str) or not entry["source"]:
        raise UserError(f"{where} needs source: every number says where it comes from")
    if entry.get("grade") not in GRADES:
        raise UserError(f"{where} needs grade, one of {', '.join(GRADES)}, found {entry.get('grade')!r}")
    return {"source": entry["source"], "grade": entry["grade"]}


def _constants(where: str, content: Mapping[str, Any], equation: ModuleType) -> dict[str, Constant]:
    """Those that the equation knows, all that it needs, each measured in what it must be."""
    entries, known = content.get("constants", {}), equation.CONSTANTS
    missing, odd = sorted(equation.REQUIRED - set(entries)), sorted(set(entries) - set(known))
    if missing or odd:
        raise UserError(
            f"{where}: equation {content['equation']} lacks the constants {missing} and knows no {odd}"
            f" (it knows {', '.join(known)})"
        )
    for group in equation.TOGETHER:
        if group & set(entries) not in (set(), group):
            raise UserError(f"{where}: the constants {' and '.join(sorted(group))} come together")
    return {key: _constant(f"{where}: [constants.{key}]", entry, known[key]) for key, entry in entries.items()}


def _constant(where: str, entry: Any, measure: str) -> Constant:
    units = [unit for unit, (measured, _) in UNITS.items() if measured == measure]
    if not isinstance(entry, dict) or entry.get("unit") not in units:
        raise UserError(f"{where} needs value, unit (one of {', '.join(units)}), source and grade")
    return Constant(_number(where, entry, "value"), entry["unit"], **_source_and_grade(where, entry))


def _sram(where: str, content: Mapping[str, Any]) -> Sram | None:
    if "sram" not in content:
        return None
    _source_and_grade(f"{where}: [sram]", content["sram"])
    return read_sram(where, content["sram"])


def _choices(where: str, content: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    given = content.get("choices", {})
    for key, options in known.items():
        if given.get(key) not in options:
            raise UserError(f"{where}: [choices] {key} is {given.get(key)!r}, expected one of {options}")
    if odd := sorted(set(given) - set(known)):
        raise UserError(f"{where}: [choices] knows no {odd}")
    return dict(given)


def _operating_point(where: str, entry: Mapping[str, Any]) -> OperatingPoint:
    where = f"{where}: [[operating_point]] {entry.get('name', '?')}"
    joules = _number(where, entry, "pj_per_sop") * JOULES["pJ"]
    return OperatingPoint(str(entry.get("name", "")), joules, **_source_and_grade(where, entry))


def _worked_example(where: str, entry: Mapping[str, Any], known: Mapping[str, Constant]) -> WorkedExample:
    where = f"{where}: [[worked_example]] {entry.get('name', '?')}"
    figures = [key for key in ("published", "by_hand") if key in entry]
    if len(figures) != 1 or entry.get("unit") not in list(JOULES) or not entry.get("source"):
        raise UserError(f"{where} needs published or by_hand, unit (of {', '.join(JOULES)}), source and layers")
    if not isinstance(entry.get("layers"), list):
        raise UserError(f"{where} needs layers, an array of tables")
    joule = JOULES[entry["unit"]]
    return WorkedExample(
        name=str(entry.get("name", "")),
        source=str(entry["source"]),
        published=figures == ["published"],
        joules=_number(where, entry, figures[0]) * joule,
        tolerance=_number(where, entry, "tolerance"),
        layers=_layers(where, entry["layers"]),
        conditions=Conditions(
            step_seconds=_numbers(f"{where}: conditions", entry.get("conditions", {}), ("step_seconds",)).get(
                "step_seconds"
            )
        ),
        constants=_numbers(f"{where}: constants", entry.get("constants", {}), known),
        parts={name: pj * joule for name, pj in _numbers(f"{where}: parts", entry.get("parts", {}), PARTS).items()},
    )


def _layers(where: str, records: list[Any]) -> tuple[LayerFacts, ...]:
    try:
        return tuple(make_layer(record) for record in records)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _numbers(where: str, table: Any, known: Iterable[str]) -> dict[str, float]:
    """A table of numbers whose names are known."""
    if not isinstance(table, dict) or (odd := [key for key in table if key not in known]):
        raise UserError(f"{where} knows only {', '.join(known)}, found {table if not isinstance(table, dict) else odd}")
    return {key: _number(where, table, key) for key in table}
