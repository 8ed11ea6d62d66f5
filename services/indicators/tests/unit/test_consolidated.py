"""The consolidated price against wild, stale, lone and jumping sources."""

from __future__ import annotations

from decimal import Decimal

from cryptopulse.indicators.domain.consolidated import (
    Memory,
    SourceView,
    consolidate,
    source_price,
    weights_of,
)

NOW = 1_700_000_000_000_000


def a_view(
    name: str,
    price: str,
    *,
    age_s: float = 0.0,
    volume: float = 10.0,
    c: str = "0.5",
    refused: str | None = None,
) -> SourceView:
    return SourceView(name, Decimal(price), Decimal(c), NOW - int(age_s * 1e6), volume, refused)


def test_one_wild_venue_of_three_does_not_move_the_price() -> None:
    calm = consolidate([a_view("a", "100.0"), a_view("b", "100.2"), a_view("c", "100.1")], Memory(), NOW)
    wild = consolidate(
        [a_view("a", "100.0"), a_view("b", "100.2"), a_view("c", "120", volume=1e9)], Memory(), NOW
    )
    assert calm is not None
    assert calm.status == "ok"
    assert wild is not None
    assert wild.status == "degraded"
    assert abs(wild.price - calm.price) <= Decimal("0.5")
    assert [(gone.source, gone.reason) for gone in wild.excluded] == [("c", "outlier")]


def test_of_two_far_apart_the_one_near_the_last_value_stays() -> None:
    memory = Memory(price=Decimal(100), at_us=NOW)
    found = consolidate([a_view("a", "101"), a_view("b", "87", volume=1e6)], memory, NOW)
    assert found is not None
    assert (found.price, found.status, found.used) == (Decimal(101), "degraded", ["a"])


def test_a_single_source_is_said_to_be_single() -> None:
    found = consolidate([a_view("a", "100"), a_view("b", "50", age_s=31)], Memory(), NOW)
    assert found is not None
    assert (found.price, found.status) == (Decimal(100), "single")
    assert found.excluded[0].reason == "stale"


def test_a_lone_jump_is_held_for_three_seconds_and_never_for_ever() -> None:
    memory = Memory(price=Decimal(100), at_us=NOW - 500_000)
    first = consolidate([a_view("a", "130")], memory, NOW)
    assert first is not None
    assert first.price == Decimal(100)
    assert first.excluded[0].reason == "unconfirmed_jump"
    later = SourceView("a", Decimal(130), Decimal(0), NOW + 2_900_000, 1.0)
    assert consolidate([later], memory, NOW + 2_900_000).price == Decimal(100)  # type: ignore[union-attr]  # a source counts
    latest = SourceView("a", Decimal(131), Decimal(0), NOW + 3_100_000, 1.0)
    confirmed = consolidate([latest], memory, NOW + 3_100_000)
    assert confirmed is not None
    assert confirmed.price == Decimal(131)
    assert confirmed.status == "single"


def test_a_lone_jump_that_goes_back_is_forgotten() -> None:
    memory = Memory(price=Decimal(100), at_us=NOW)
    consolidate([a_view("a", "130")], memory, NOW)
    back = consolidate([a_view("a", "100.5")], memory, NOW)
    assert back is not None
    assert back.price == Decimal("100.5")
    assert memory.held_price is None


def test_nothing_fresh_gives_no_price_never_zero() -> None:
    assert (
        consolidate([a_view("a", "100", age_s=60), a_view("b", "1", refused="rate_stale")], Memory(), NOW)
        is None
    )


def test_a_venue_with_nearly_all_volume_has_half_the_say() -> None:
    weights = weights_of([a_view("a", "1", volume=1e9), a_view("b", "1", volume=1.0)], NOW)
    assert weights[0] == 0.5


def test_a_crossed_or_wide_quote_gives_way_to_the_last_trade() -> None:
    last = Decimal(100)
    assert source_price(last, Decimal(101), Decimal(99)) == (last, Decimal(0))
    assert source_price(last, Decimal(90), Decimal(110)) == (last, Decimal(0))
    assert source_price(last, Decimal("99.9"), Decimal("100.1")) == (Decimal(100), Decimal("0.1"))
    assert source_price(None, None, None) is None
