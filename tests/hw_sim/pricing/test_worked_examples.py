"""Every figure that a model's file says it reproduces, and proof that the test would notice a wrong constant."""

from __future__ import annotations

import pytest

from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.worked_examples import deviation, price_example, reproduces
from tests.tolerances import ENERGY

MODELS = {name: load_model(name) for name in available_models()}
EXAMPLES = [(name, example) for name, model in MODELS.items() for example in model.worked_examples]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[f"{name}: {example.name}" for name, example in EXAMPLES])
def test_every_worked_example_to_its_tolerance(name, example):
    model = MODELS[name]
    assert abs(deviation(model, example)) <= example.tolerance
    parts = price_example(model, example).parts
    assert {part: parts[part] for part in example.parts} == pytest.approx(example.parts, rel=ENERGY)


def test_every_model_has_one():
    assert all(model.worked_examples for model in MODELS.values())


UNSEEN = {"neurons_per_chip", "mac"}  # no example of these models needs more than a chip, or multiplies


@pytest.mark.parametrize("name", ["lemaire2022", "lemaire2022_qualia", "spikesim", "odin", "truenorth", "sata"])
def test_a_constant_that_is_ten_per_cent_off_fails_an_example(name):
    model = MODELS[name]
    for key in set(model.constants) - UNSEEN:
        wrong = model.with_constants({key: model.constants[key].value * 1.1})
        free = [example for example in model.worked_examples if key not in example.constants]
        assert any(abs(deviation(wrong, example)) > example.tolerance for example in free), key


def test_what_a_model_reproduces_counts_published_figures_only():
    assert reproduces(MODELS["loihi1"]) == pytest.approx(0.2022, abs=1e-4)  # 1.599 mJ for 1.33 measured
    assert reproduces(MODELS["odin"]) == pytest.approx(0.0027, abs=1e-4)  # 35.09 for 35 uW
    assert reproduces(MODELS["seneca"]) is None  # its only example is ours
