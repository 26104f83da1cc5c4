"""A model with another price of an addition and other sizes of memories: what the sliders of a page move."""

from __future__ import annotations

from hw_sim.pricing.model import EnergyModel

AC_FACTORS = tuple(2.0 ** (step / 4) for step in range(-16, 17))  # times the model's own price
MEMORY_FACTORS = tuple(2.0**step for step in range(-10, 5))  # times each layer's own size
AC_PRICE = {"price_list": "ac", "chip": "sop", "lemaire2022": "add"}  # the constant that an accumulation costs


def scaled(model: EnergyModel, ac: float, memory: float) -> EnergyModel:
    """The model with its price of an AC and the bytes of every memory times these factors, where it has such."""
    name = AC_PRICE.get(model.equation)
    values = {name: model.constants[name].value * ac} if name in model.constants else {}
    if model.sram:
        values["word"] = model.constants["word"].value * memory
    return model.with_constants(values)


def memory_factors(model: EnergyModel) -> tuple[float, ...]:
    """All of them where the model has memories, else one: none matters."""
    return MEMORY_FACTORS if model.sram else (1.0,)
