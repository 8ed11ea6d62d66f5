"""Live values are those of HTTP, digit by digit, however the prices went before."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptopulse.common.contracts.http.amounts import printed_amount
from cryptopulse.portfolio.domain.live_book import LiveBook, PriceSlot
from cryptopulse.portfolio.domain.money import kept, money_context
from cryptopulse.portfolio.domain.valuation import Position, Quote, allocation, value_book

ASSETS = ("BTC", "ETH", "EUR", "SOL", "USD", "ZZZ")
AMOUNTS = st.decimals("0", "1000000", places=18) | st.decimals("0", "1e15", places=0)
PRICES = st.decimals("0.000000000001", "100000", places=12)


@st.composite
def quotes(draw: st.DrawFn) -> dict[str, Quote]:
    """Prices of some of the assets, some of them stale."""
    found = {}
    for asset in draw(st.sets(st.sampled_from(ASSETS))):
        found[asset] = Quote(
            draw(PRICES), 5, stale=draw(st.integers(0, 5)) == 0, seq=draw(st.integers(0, 3)),
            change_24h_pct=draw(st.none() | st.decimals("-100", "300", places=4)),
        )  # fmt: skip
    return found


@st.composite
def books(draw: st.DrawFn) -> list[Position]:
    """Positions with and without units."""
    names = draw(st.lists(st.sampled_from(ASSETS), unique=True, max_size=6))
    return [
        Position(
            name, kept(draw(AMOUNTS)) if draw(st.booleans()) else draw(AMOUNTS),
            draw(AMOUNTS), Decimal(0),
        )
        for name in names
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(books(), st.lists(quotes(), min_size=1, max_size=4), st.sampled_from(["USD", "EUR"]))
def test_live_equals_http(positions: list[Position], moves: list[dict[str, Quote]], base: str) -> None:
    with money_context():
        held = [p for p in positions if p.quantity]
        slots = [PriceSlot(p.asset, None, base) for p in held]
        slots += [PriceSlot(base, None, base)] if base != "USD" else []
        live = LiveBook(held, slots, printed_amount)
        for found in moves:
            for slot in slots:
                slot.show(found.get(slot.asset), found.get(base), printed_amount)
            ours = live.value(live.snapshot_id())
            theirs = value_book(positions, found, base)
            sums = theirs.sums
            assert ours.snapshot_id == theirs.snapshot_id
            for mine, other in (
                (ours.value, sums.value),
                (ours.cost, sums.cost),
                (ours.unrealised, sums.unrealised),
                (ours.unrealised_pct, sums.unrealised_pct),
                (ours.change_24h, sums.change_24h),
            ):
                assert printed(mine) == printed(other)
            assert ours.complete == sums.complete
            assert ours.allocation == allocation(
                {v.position.asset: v.value for v in theirs.holdings if v.value}
            )
            assert ours.holdings == [
                {
                    "asset": v.position.asset,
                    "quantity": printed(v.position.quantity),
                    "price": printed(v.price),
                    "value": printed(v.value),
                    "unrealised_pnl": printed(v.unrealised),
                }
                for v in theirs.holdings
            ]


def printed(value: Decimal | None) -> str | None:
    return None if value is None else printed_amount(value)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_an_amount_is_printed_the_same_by_the_short_way(value: Decimal) -> None:
    if abs(value) < Decimal("1e36"):
        with money_context():
            text = format(value.quantize(Decimal("1e-24")), "f").rstrip("0").rstrip(".")
        assert printed_amount(value) == ("0" if text in {"-0", ""} else text)
