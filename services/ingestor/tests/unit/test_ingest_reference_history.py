"""History of coins that no venue trades: whose, in which order, and never twice for nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.adapters.coingecko.messages import Ohlc
from cryptopulse.ingestor.adapters.coingecko.parse import candles_of
from cryptopulse.ingestor.application.ports import Page
from cryptopulse.ingestor.application.reference_history import HOUR_MS, ReferenceHistory
from cryptopulse.ingestor.domain.history import Covered

ONE = Decimal(1)


class Source:
    name = "coingecko"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.is_down = False

    async def candles(self, coin_id: str, symbol: str, interval: Any, days: int) -> list[Candle]:
        self.asked.append((coin_id, interval, days))
        if self.is_down:
            raise UpstreamUnavailable("down")
        return [
            Candle(symbol, self.name, interval, 0, ONE, ONE, ONE, ONE, Decimal(0), Decimal(0), 0, Decimal(0))
        ]


class Marks:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Covered] = {}

    async def load(self, venue: str) -> dict[tuple[str, str], Covered]:
        return dict(self.kept)

    async def save(self, venue: str, symbol: str, interval: str, covered: Covered) -> None:
        self.kept[symbol, interval] = covered


class Bench:
    def __init__(self) -> None:
        self.clock, self.source, self.marks = ManualClock(), Source(), Marks()
        self.messages: list[HistoryBatch] = []
        self.history = self.restarted()

    async def publish(self, topic: Any, message: HistoryBatch, **_: Any) -> None:
        self.messages.append(message)

    def restarted(self) -> ReferenceHistory:
        bus: Any = self
        source: Any = self.source
        history = ReferenceHistory(
            source,
            bus,
            self.clock,
            self.marks,
            is_traded=lambda base: base == "BTC",
            shards=4,
            simulated=False,
        )
        rows = (("bitcoin", "BTC", 1), ("batcat", "WIF", 900), ("dogwifcoin", "WIF", 60))
        coins = [
            Coin(id=name, symbol=symbol.lower(), name=name, market_cap_rank=rank)
            for name, symbol, rank in rows
        ]
        prices = [
            ReferencePrice(coin_id=name, symbol=f"{symbol}-USD", price=ONE, updated_us=1, received_us=1)
            for name, symbol, _ in rows
        ]
        history.note(Page(coins, prices))
        return history


@pytest.fixture
def bench() -> Bench:
    return Bench()


EVERY = ["bitcoin", "batcat", "dogwifcoin"]


async def test_only_what_no_venue_trades_and_of_one_symbol_the_highest_ranked(bench: Bench) -> None:
    assert not await bench.history.fetch_next([])
    while await bench.history.fetch_next(EVERY):
        assert len(bench.source.asked) <= 2
    assert sorted(bench.source.asked) == [("dogwifcoin", "30m", 1), ("dogwifcoin", "4h", 30)]
    assert {(m.venue, m.symbol, m.candles[0].source) for m in bench.messages} == {
        ("coingecko", "WIF-USD", "coingecko")
    }


async def test_it_is_asked_again_before_a_hole_comes_and_not_at_a_restart(bench: Bench) -> None:
    while await bench.history.fetch_next(EVERY):
        pass
    assert not await bench.restarted().fetch_next(EVERY)
    bench.clock.advance(13 * HOUR_MS / 1_000)
    bench.source.asked.clear()
    while await bench.history.fetch_next(EVERY):
        pass
    assert bench.source.asked == [("dogwifcoin", "30m", 1)]


async def test_a_source_that_fails_is_left_alone_for_an_hour(bench: Bench) -> None:
    bench.source.is_down = True
    while await bench.history.fetch_next(EVERY):
        pass
    assert len(bench.source.asked) == 2
    assert bench.messages == []
    bench.clock.advance(HOUR_MS / 1_000 + 1)
    bench.source.is_down = False
    while await bench.history.fetch_next(EVERY):
        pass
    assert len(bench.messages) == 2


def test_rows_off_the_grid_unbelievable_or_not_closed_are_left_out() -> None:
    hour = 4 * HOUR_MS
    good = Ohlc(2 * hour, Decimal(2), Decimal(3), Decimal(1), Decimal("2.5"))
    rows = [
        Ohlc(3 * hour, ONE, ONE, ONE, ONE),
        good,
        Ohlc(2 * hour + 5, ONE, ONE, ONE, ONE),
        Ohlc(4 * hour, ONE, Decimal("0.5"), ONE, ONE),
        Ohlc(5 * hour, ONE, ONE, Decimal(0), ONE),
        Ohlc(9 * hour, ONE, ONE, ONE, ONE),
    ]
    raw = [msgspec.Raw(msgspec.json.encode(row)) for row in rows]
    refused: list[str] = []
    found = candles_of(raw, "WIF-USD", "4h", 8 * hour, lambda row, why: refused.append(why))
    assert refused == []
    assert [(c.open_time, c.close, c.volume, c.trades) for c in found] == [
        (hour, Decimal("2.5"), Decimal(0), 0),
        (2 * hour, ONE, Decimal(0), 0),
    ]
