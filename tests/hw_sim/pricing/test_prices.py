from __future__ import annotations

import pytest

from esdnet.command.errors import UserError
from export.graph.counting import NodeCounts
from hw_sim.pricing.prices import available, load_prices, memory_words


def counts(**values: int) -> dict[str, int]:
    return {**NodeCounts.zeros(1).totals(), **values}


def test_the_papers_prices():
    prices = load_prices("paper")
    assert prices.energy_j(counts(macs=1_000_000)) == pytest.approx(12.5e-6)
    assert prices.energy_j(counts(acs=1_000_000)) == pytest.approx(0.077e-6)
    assert prices.energy_j(counts(spikes=1_000_000)) == pytest.approx(3.7e-6)
    assert prices.energy_j(counts(macs=2, acs=3, spikes=5)) == pytest.approx((25 + 0.231 + 18.5) * 1e-12)


def test_elementwise_work_and_memory_are_priced_on_demand_only():
    prices = load_prices("horowitz_fp32")
    work = counts(adds=10, muls=10, weight_words=3, activation_words=2, spike_bits=32)
    assert prices.energy_j(work) == 0
    assert prices.energy_j(work, elementwise=True) == pytest.approx((9 + 37) * 1e-12)
    assert memory_words(work) == 6
    assert prices.energy_j(work, elementwise=True, memory=True) == pytest.approx((46 + 30) * 1e-12)


def test_what_a_list_cannot_price_is_named_and_not_free():
    loihi = load_prices("loihi1")
    assert loihi.unpriced(counts(macs=7, acs=3, spikes=1)) == {"macs": 7}
    assert loihi.unpriced(counts(acs=3)) == {}
    assert loihi.energy_j(counts(neuron_updates=2)) == pytest.approx(162e-12)


@pytest.mark.parametrize("name", available())
def test_every_number_says_where_it_comes_from(name):
    prices = load_prices(name)
    assert prices.prices
    assert all(price.source and price.grade for price in prices.prices.values())


def test_the_default_comes_first():
    assert available()[0] == "paper"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mac]\npj = 1\nsource = 's'", r"\[mac\] needs grade: every price says where it comes from"),
        ("[mac]\npj = -1\nsource = 's'\ngrade = 'g'", r"\[mac\] needs pj, .* found -1"),
        ("[mac]\npj = 'x'\nsource = 's'\ngrade = 'g'", r"\[mac\] needs pj, .* found 'x'"),
        ("[flop]\npj = 1", "unknown entry 'flop'"),
        ("not toml", "not a price list"),
    ],
)
def test_a_bad_list_of_the_users_own_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_prices(str(path))


def test_an_unknown_list_names_those_there_are():
    with pytest.raises(
        UserError, match="'gold' is unknown: expected one of paper, horowitz_fp32, horowitz_int8, loihi1"
    ):
        load_prices("gold")
