"""What a value is, given what it was made of: spikes only where nothing but 0 and 1 can come out."""

import itertools

import pytest

from export.graph.nodes import ValueKind
from hw_sim.counter.values import (
    GATED,
    NUMBERS,
    ONE,
    ZERO,
    Firing,
    Value,
    added,
    chosen,
    complement,
    joined,
    multiplied,
    summed,
)

SPIKES, GRADED = Value(ValueKind.SPIKE), Value(ValueKind.GRADED)
HOLDS = {id(ZERO): [0], id(ONE): [1], id(SPIKES): [0, 1], id(GRADED): [0, 1, 2, 3], id(NUMBERS): [-1, 0, 0.5, 2]}
ALL = [ZERO, ONE, SPIKES, GRADED, NUMBERS]


def may_hold(value, numbers) -> bool:
    if value.fill is not None:
        return set(numbers) == {value.fill}
    if value.kind is ValueKind.SPIKE:
        return set(numbers) <= {0, 1}
    return value.kind is ValueKind.ANALOG or all(number >= 0 and number == int(number) for number in numbers)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(ALL, ALL)))
def test_no_rule_promises_what_numbers_could_break(left, right):
    pairs = list(itertools.product(HOLDS[id(left)], HOLDS[id(right)]))
    assert may_hold(added([left, right]), [a + b for a, b in pairs])
    assert may_hold(complement(left, right), [a - b for a, b in pairs])
    assert may_hold(multiplied([left, right]), [a * b for a, b in pairs])
    assert may_hold(joined([left, right]), [number for pair in pairs for number in pair]) or ZERO in (left, right)
    for condition in (SPIKES, NUMBERS):
        chosen_value = chosen(condition, left, right)
        assert (
            chosen_value is condition
            or may_hold(chosen_value, [n for pair in pairs for n in pair])
            or (ZERO in (left, right))
        )
    assert may_hold(summed(left), [a + b for a in HOLDS[id(left)] for b in HOLDS[id(left)]]) or left is ONE


def test_a_zero_state_goes_with_spikes_and_with_numbers():
    for value in (SPIKES, GRADED, NUMBERS):
        assert joined([ZERO, value]) is value
        assert added([ZERO, value]) is value
        assert multiplied([ZERO, value]) is ZERO


def test_spikes_keep_their_origin_through_joins():
    first, second = Value(ValueKind.SPIKE, firing=Firing(fired=3)), Value(ValueKind.SPIKE, firing=Firing(fired=4))
    assert joined([first, ZERO]).firing is first.firing
    both = joined([first, second]).firing
    assert set(both.parents) == {first.firing, second.firing}
    assert both.waits
    assert multiplied([first, ONE]) is first
    assert added([first, second]).kind is ValueKind.GRADED


def test_gates_of_spikes_are_spikes_of_nobody_yet():
    assert multiplied([SPIKES, SPIKES]) is GATED
    assert complement(ONE, SPIKES) is GATED
    assert chosen(SPIKES, ZERO, ONE) is GATED


def test_a_comparison_that_chooses_one_or_zero_is_its_spikes():
    assert chosen(SPIKES, ONE, ZERO) is SPIKES
    assert chosen(SPIKES, ONE, NUMBERS) is NUMBERS
