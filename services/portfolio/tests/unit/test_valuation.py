"""What is not known is null and said; parts sum to the whole; the best and the worst are no dust."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptopulse.portfolio.domain.money import money_context
from cryptopulse.portfolio.domain.valuation import (
    Position,
    Quote,
    Valuation,
    allocation,
    best_and_worst,
    snapshot_id,
    value_book,
)

D = Decimal


def held(asset: str, quantity: str, cost: str, **more: str) -> Position:
    return Position(asset, D(quantity), D(cost), D(cost), **{name: D(v) for name, v in more.items()})  # type: ignore[arg-type] # money only


def priced(**prices: str) -> dict[str, Quote]:
    return {asset: Quote(D(price), 5) for asset, price in prices.items()}


def worths(valuation: Valuation) -> list[tuple[str, str | None]]:
    return [(v.position.asset, None if v.value is None else format(v.value, "f")) for v in valuation.holdings]


def names(valuation: Valuation) -> tuple[str | None, str | None]:
    best, worst = best_and_worst(valuation)
    return (best.position.asset if best else None, worst.position.asset if worst else None)


def test_an_unknown_or_stale_price_is_null_and_totals_cover_the_rest() -> None:
    quotes = {**priced(BTC="150"), "ETH": Quote(D(9), 90_500, stale=True)}
    book = [held("BTC", "2", "200"), held("ETH", "1", "1"), held("NEW", "7", "0.5")]
    found = value_book(book, quotes, "USD")
    assert worths(found) == [("BTC", "300"), ("ETH", None), ("NEW", None)]
    assert (found.unpriced, found.stale) == (["ETH", "NEW"], [("ETH", 90)])
    assert str(found.sums.value) == "300"
    assert found.sums.unrealised == 100
    assert not found.sums.complete
    assert found.sums.cost == D("201.5")
    assert found.sums.unrealised_pct == 50  # what is not priced cost less than a hundredth of all


def test_percentages_are_null_when_what_is_unpriced_cost_more_than_a_hundredth() -> None:
    book = [held("BTC", "2", "200", flow_in="200"), held("NEW", "7", "3", flow_in="3")]
    sums = value_book(book, priced(BTC="150"), "USD").sums
    assert sums.unrealised == 100
    assert (sums.unrealised_pct, sums.total_return_pct, sums.change_24h_pct) == (None, None, None)


def test_nothing_priced_is_null_and_nothing_held_is_zero() -> None:
    nothing = value_book([held("NEW", "7", "3")], {}, "USD").sums
    assert (nothing.value, nothing.unrealised, nothing.total_pnl, nothing.complete) == (
        None,
        None,
        None,
        False,
    )
    empty = value_book([], {}, "USD").sums
    assert empty.value == 0
    assert empty.complete


def test_without_a_rate_of_the_base_currency_only_the_base_itself_has_a_value() -> None:
    book = [held("BTC", "1", "1"), held("EUR", "5", "5")]
    found = value_book(book, priced(BTC="100"), "EUR")
    assert worths(found) == [("EUR", "5"), ("BTC", None)]
    both = value_book(book, priced(BTC="100", EUR="1.25"), "EUR")
    assert worths(both) == [("BTC", "80"), ("EUR", "5")]


def test_the_change_of_a_day_is_that_of_todays_units() -> None:
    quotes = {"BTC": Quote(D(110), 5, change_24h_pct=D(10)), "ETH": Quote(D(90), 5, change_24h_pct=D(-10))}
    sums = value_book([held("BTC", "3", "1"), held("ETH", "1", "1")], quotes, "USD").sums
    assert sums.change_24h == 20
    assert sums.change_24h_pct == D(5)


def test_totals_add_up() -> None:
    closed = held("OLD", "0", "0", realised="7", income="2", fees_separate="1", flow_in="50")
    sums = value_book([held("BTC", "1", "100", flow_in="100"), closed], priced(BTC="130"), "USD").sums
    assert sums.total_pnl == 30 + 7 + 2 - 1
    with money_context():
        assert sums.total_return_pct == D(38) / 150 * 100


def test_best_and_worst_are_by_percent_without_dust_gifts_and_the_unpriced() -> None:
    book = [
        held("UP", "1", "100"), held("DOWN", "1", "100"), held("FREE", "1", "0"), held("DUST", "1", "0.01"),
        held("DARK", "1", "1"),
    ]  # fmt: skip
    found = value_book(book, priced(UP="150", DOWN="80", FREE="9", DUST="0.2"), "USD")
    assert names(found) == ("UP", "DOWN")
    alone = value_book([held("BTC", "1", "100")], priced(BTC="90"), "USD")
    assert names(alone) == ("BTC", "BTC")
    assert names(value_book([held("FREE", "1", "0")], priced(FREE="9"), "USD")) == (None, None)


def test_ties_of_best_and_worst_go_by_amount_then_name() -> None:
    book = [held("B", "1", "100"), held("A", "1", "100"), held("C", "3", "300")]
    found = value_book(book, priced(A="110", B="110", C="110"), "USD")
    assert names(found) == ("C", "C")
    assert names(value_book(book[:2], priced(A="110", B="110"), "USD")) == ("A", "A")


@settings(deadline=None)
@given(
    st.dictionaries(st.text("ABC", min_size=1), st.decimals("0.000001", "1e12", places=6), min_size=1),
    st.integers(0, 4),
)
def test_printed_parts_sum_to_exactly_a_hundred(parts: dict[str, Decimal], digits: int) -> None:
    found = allocation(parts, digits)
    unit = D(1).scaleb(-digits)
    total = sum(parts.values(), D(0))
    assert sum(found.values(), D(0)) == 100
    for name, part in found.items():
        assert part == part.quantize(unit)
        assert abs(part - parts[name] / total * 100) <= unit


@pytest.mark.parametrize(
    "other",
    [Quote(D(2), 5), Quote(D(1), 5, seq=1), Quote(D(1), 5, epoch=1), Quote(D(1), 5, stale=True)],
)
def test_a_snapshot_is_named_by_what_went_into_it(other: Quote) -> None:
    assert snapshot_id({"A": Quote(D(1), 5)}) == snapshot_id({"A": Quote(D(1), 900)})
    assert snapshot_id({"A": Quote(D(1), 5)}) != snapshot_id({"A": other})
