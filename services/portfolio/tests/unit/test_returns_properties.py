"""What comes from outside or goes there is no performance: time-weighted returns do not see it, money-weighted ones must.

The whole read path is under test, from legs over replay and daily series to the figures as they are answered. Money in is
priced at the close before its day and money out at that of its day, as the daily linking defines (`returns.linked`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.performance import Performance, Performer, Span, Track
from cryptopulse.portfolio.application.ports import AssetRef, Coin, Portfolio, Segment
from cryptopulse.portfolio.application.replay import replayed
from cryptopulse.portfolio.domain.book import Book
from cryptopulse.portfolio.domain.money import ZERO, use_money_context
from cryptopulse.portfolio.domain.postings import key_of
from cryptopulse.portfolio.domain.transactions import CashMode, Transaction, postings_of

D = Decimal
DAY_US = 86_400_000_000
START = 19_000
INITIAL = {"BTC": D("1.5"), "ETH": D("40"), "USD": D("1000")}
MODES = st.sampled_from(["implicit", "explicit"])
ABOUT = D("1e-30")


@pytest.fixture(autouse=True)
def _sixty_digits() -> None:
    use_money_context()


@dataclass(frozen=True)
class Move:
    """Units come or go, in parts of what the book begins with."""

    day: int
    time_us: int
    kind: str
    part: Decimal


@dataclass
class World:
    """A book and the closes of its assets, as the performance reads them."""

    mode: CashMode
    closes: dict[str, list[Decimal]]
    moves: Sequence[Move] = ()

    def postings(self) -> list[Any]:
        rows = [Move(0, 0, "transfer_in", D(1)), *self.moves]
        transactions = [self._transaction(row, asset) for row in rows for asset in self.closes]
        legs = [leg for n, tx in enumerate(transactions, 1) for leg in postings_of(tx, n, self.mode)]
        return sorted(legs, key=key_of)

    def _transaction(self, move: Move, asset: str) -> Transaction:
        into = move.kind in {"transfer_in", "deposit", "buy"}
        price = self.closes[asset][max(move.day - 1, 0) if into else move.day]
        quantity = INITIAL.get(asset, D(1)) * move.part
        value = quantity * price
        return Transaction(
            kind=move.kind, at_us=(START + move.day) * DAY_US + move.time_us, asset=asset, quantity=quantity,  # type: ignore[arg-type] # drawn from the kinds
            price=price, total=value, value=value,
        )  # fmt: skip

    # --- what the performance asks ---

    @asynccontextmanager
    async def unit(self, owner_id: str, *, readonly: bool = False) -> AsyncIterator[Any]:
        assert (owner_id, readonly) == ("alice", True)
        yield self

    async def portfolio(self, portfolio_id: int) -> Portfolio:
        now = datetime.now(UTC)
        return Portfolio(
            portfolio_id, "alice", "x", "USD", "fifo", self.mode, "portfolio", True, 365, False, 1, 1, now, now
        )  # fmt: skip

    async def segments(self, portfolio_id: int) -> list[tuple[str, Segment]]:
        policy = (await self.portfolio(portfolio_id)).policy()
        postings = self.postings()
        groups = {asset: [leg for leg in postings if leg.asset == asset] for asset in self.closes}
        return [
            (asset, segment)
            for asset, legs in groups.items()
            if legs
            for segment in replayed(Book(policy), legs, 0)[1]
        ]

    async def coins(self, portfolio_id: int) -> list[Coin]:
        return []

    async def daily(
        self, assets: Sequence[AssetRef], from_day: int, to_day: int
    ) -> dict[str, Mapping[int, Decimal]]:
        return {
            ref.asset: {
                START + n: close
                for n, close in enumerate(self.closes[ref.asset])
                if from_day <= START + n <= to_day
            }
            for ref in assets
        }

    def _performer(self) -> Performer:
        clock = ManualClock((START + len(self.closes["BTC"]) + 1) * DAY_US // 1_000)
        stand_in: Any = self
        return Performer(stand_in, stand_in, stand_in, stand_in, clock)

    def _span(self) -> Span:
        return Span(to_day=START + len(self.closes["BTC"]) - 1)

    def track(self) -> Track:
        return asyncio.run(self._performer().track("alice", 7, self._span()))

    def performance(self) -> Performance:
        return asyncio.run(self._performer().performance("alice", 7, self._span()))


PRICES = st.decimals("0.01", "100000", places=2)


@st.composite
def worlds(draw: Any) -> tuple[World, World]:
    """A book that is left alone, and the same with moves of all its assets in proportion: one direction a day, any time."""
    mode = draw(MODES)
    length = draw(st.integers(2, 9))
    closes = {asset: draw(st.lists(PRICES, min_size=length, max_size=length)) for asset in ("BTC", "ETH")}
    if mode == "explicit":
        closes["USD"] = [D(1)] * length
    into = ["transfer_in", "deposit"] + (["buy"] if mode == "implicit" else [])
    out = ["transfer_out", "withdraw"] + (["sell", "gift"] if mode == "implicit" else [])
    held, moves = D(1), []
    for day in range(1, length):
        kinds = draw(st.sampled_from([(), into, out]))
        times = draw(st.lists(st.integers(0, DAY_US - 1), max_size=3, unique=True)) if kinds else []
        for time_us in sorted(times):
            part = draw(st.decimals("0.000001", "1000000", places=6))
            if kinds is out:
                share = draw(st.sampled_from([D("0.001"), D("0.5"), D("0.999999")]))
                part = (held * share).quantize(D("1e-12"), rounding=ROUND_DOWN)
            held += part if kinds is into else -part
            moves.append(Move(day, time_us, draw(st.sampled_from(kinds)), part))
    return World(mode, closes), World(mode, closes, moves)


@settings(deadline=None, max_examples=150)
@given(worlds())
def test_what_comes_and_goes_is_neutral_to_the_time_weighted_return(pair: tuple[World, World]) -> None:
    alone, moved = pair[0].track(), pair[1].track()
    assert [day.day for day in alone.days] == [day.day for day in moved.days]
    for ours, theirs in zip(moved.days, alone.days, strict=True):
        assert ours.result is not None
        assert theirs.result is not None
        assert abs(ours.result - theirs.result) <= ABOUT * (1 + abs(theirs.result))
    figures = [world.performance() for world in pair]
    assert figures[1].twr.value == pytest.approx(figures[0].twr.value, rel=1e-12)
    moves = sum((day.flow for day in moved.days), ZERO)
    assert figures[1].net_flow == moves


LENGTHS = st.integers(150, 600)
SIZES = st.decimals("0.001", "1000", places=3)


@st.composite
def walks(draw: Any) -> tuple[list[Decimal], int]:
    """Closes that change once in the middle and once at the end, and the day of the first change."""
    length = draw(LENGTHS)
    middle = draw(st.integers(60, length - 60))
    first, second, third = (draw(st.decimals("60", "140", places=1)) for _ in range(3))
    return [first] * middle + [second] * (length - middle) + [third], middle


def annual(grown: Decimal, days: int) -> float:
    return float(float(grown) ** (365 / days)) - 1


@settings(deadline=None, max_examples=60)
@given(walks(), SIZES, st.sampled_from(["transfer_in", "deposit", "buy"]), st.integers(0, DAY_US - 1))
def test_money_in_moves_the_money_weighted_return_towards_what_it_earned_itself(
    walk: tuple[list[Decimal], int], size: Decimal, kind: str, time_us: int
) -> None:
    closes, middle = walk
    last, day = len(closes) - 1, middle + 1
    before, own = annual(closes[-1] / closes[0], last), annual(closes[-1] / closes[day - 1], last - day)
    assume(abs(own - before) > 1e-3)
    alone, moved = worth_of(closes), worth_of(closes, Move(day, time_us, kind, size))
    assert alone.money.annual.value == pytest.approx(before, abs=1e-9)
    assert moved.twr.value == pytest.approx(alone.twr.value, rel=1e-12)
    assert moved.money.annual.value is not None
    assert min(before, own) < moved.money.annual.value < max(before, own)
    more = worth_of(closes, Move(day, time_us, kind, size * 2)).money.annual.value
    assert more is not None
    assert abs(more - own) < abs(moved.money.annual.value - own)


@settings(deadline=None, max_examples=60)
@given(walks(), st.integers(1, 999), st.sampled_from(["transfer_out", "withdraw", "sell"]))
def test_money_out_moves_it_towards_what_was_earned_until_then(
    walk: tuple[list[Decimal], int], permille: int, kind: str
) -> None:
    closes, middle = walk
    last = len(closes) - 1
    before, until = annual(closes[-1] / closes[0], last), annual(closes[middle] / closes[0], middle)
    assume(abs(until - before) > 1e-3)
    alone, moved = worth_of(closes), worth_of(closes, Move(middle, 0, kind, D(permille) / 1000))
    assert moved.twr.value == pytest.approx(alone.twr.value, rel=1e-12)
    assert moved.money.annual.value is not None
    assert min(before, until) < moved.money.annual.value < max(before, until)


def worth_of(closes: list[Decimal], *moves: Move) -> Performance:
    return World("implicit", {"BTC": closes}, moves).performance()


# --- benchmarks --------------------------------------------------------------------------------------------------

BENCH = {
    "BTC": [D(100), D(150), D(200)],
    "ETH": [D(10), D(9), D(5)],
    "SOL": [D(1), D(2), D(7)],
    "EUR": [D("1.25"), D(1), D("1.6")],
}


@dataclass
class Compared(World):
    """The book holds the first asset; the others are only known."""

    base: str = "USD"

    async def portfolio(self, portfolio_id: int) -> Portfolio:
        return replace(await super().portfolio(portfolio_id), base_currency=self.base)

    def postings(self) -> list[Any]:
        return [leg for leg in super().postings() if leg.asset == "BTC"]

    def resolve(self, text: str) -> Coin | None:
        return Coin(text.upper()) if text.upper() in self.closes else None

    def against(self, benchmark: str) -> Any:
        found = self._performer().performance("alice", 7, self._since(), benchmark=benchmark)
        return asyncio.run(found).benchmark

    def _since(self) -> Span:
        return Span(from_day=START + 1, to_day=START + 2)


def compared(**fields: Any) -> Compared:
    return Compared("implicit", BENCH | fields.pop("closes", {}), **fields)


@pytest.mark.parametrize(
    ("benchmark", "growth"),
    [
        ("BTC", 2.0),
        ("eth", 0.5),
        ("SOL:3", 7.0),
        ("BTC:50,ETH:50", 1.25),
        ("BTC:1, ETH:1, SOL:2", 4.125),
        ("USD", 1.0),
    ],
)
def test_a_benchmark_is_any_asset_or_basket_bought_at_the_close_before_the_window(
    benchmark: str, growth: float
) -> None:
    found = compared(closes={"USD": [D(1)] * 3}).against(benchmark)
    assert found.twr.value == pytest.approx(growth - 1)
    assert found.excess.value == pytest.approx(2.0 - growth)


def test_a_benchmark_is_in_the_portfolios_own_currency() -> None:
    found = compared(base="EUR").against("BTC:50,SOL:50")
    assert found.twr.value == pytest.approx((0.5 * 2 + 0.5 * 7) * 1.25 / 1.6 - 1)


def test_a_benchmark_without_a_close_is_null_with_the_reason() -> None:
    found = compared(closes={"XYZ": [D(3)]}).against("BTC,XYZ")
    assert (found.twr.value, found.twr.reason) == (None, "no-close-of-XYZ")
    assert (found.excess.value, found.excess.reason) == (None, "no-benchmark")


@pytest.mark.parametrize(
    "text", ["NOPE", ",", "BTC:0", "BTC:-1", "BTC:x", "BTC:NaN", ",".join(["BTC"] * 11), "BTC:1e9"]
)
def test_a_benchmark_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="benchmark"):
        compared().against(text)
