"""What history asks a venue for, and in which order: a venue and a bus of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import HistoryBatch
from cryptopulse.ingestor.application import backfill as module
from cryptopulse.ingestor.application.backfill import NONSENSE_TIMES, Backfill, HistoryDepth
from cryptopulse.ingestor.domain.history import Covered, Series
from cryptopulse.ingestor.domain.rows import NonsenseError

MINUTE = 60_000
NOW = 1_731_000_030_000
CLOSED = NOW // MINUTE * MINUTE - MINUTE


class AskedVenue:
    name = "binance"
    intervals = frozenset({"1m", "1h", "1d"})
    rows_per_page = 100

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.cursed = ""
        self.curse: Exception = ZeroDivisionError("unthinkable")

    def native_by_rule(self, symbol: str) -> str:
        return symbol

    async def candles(self, native: str, symbol: str, interval: str, begin: int, end: int) -> list[Any]:
        self.asked.append((symbol, begin, end))
        if symbol == self.cursed:
            raise self.curse
        return []


class Noted:
    def __init__(self) -> None:
        self.messages: list[HistoryBatch] = []

    async def publish(self, topic: Any, message: HistoryBatch, **_: Any) -> None:
        self.messages.append(message)


class NoMarks:
    async def load(self, venue: str) -> dict[tuple[str, str], Covered]:
        return {}

    async def save(self, *_: Any) -> None:
        return None


class Bench:
    """A backfill that works off what waits."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clock.set_ms(NOW)
        self.venue, self.bus = AskedVenue(), Noted()
        depth = HistoryDepth(0, 0, 0)
        venue: Any = self.venue
        bus: Any = self.bus
        self.backfill = Backfill([venue], bus, self.clock, depth, marks=NoMarks(), shards=4, simulated=False)

    async def work(self) -> None:
        task = asyncio.create_task(self.backfill.run("binance", {}, lambda: None))
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_check_asks_for_the_minutes_since_the_last_one_and_no_more_than_a_page(bench: Bench) -> None:
    bench.backfill.check("binance", ["BTC-USDT"])
    await bench.work()
    assert bench.venue.asked == []
    bench.clock.advance(300)
    bench.backfill.check("binance", ["BTC-USDT", "ETH-USDT"])
    await bench.work()
    assert bench.venue.asked == [("BTC-USDT", CLOSED, CLOSED + 5 * MINUTE)]
    bench.clock.advance(86_400)
    bench.backfill.check("binance", ["BTC-USDT"])
    await bench.work()
    _, begin, end = bench.venue.asked[-1]
    assert end - begin == 100 * MINUTE


async def test_a_check_waits_behind_all_else_and_is_no_progress_of_history(bench: Bench) -> None:
    bench.backfill.check("binance", ["BTC-USDT"])
    bench.clock.advance(120)
    bench.backfill.check("binance", ["BTC-USDT"])
    bench.backfill.ask(Series("binance", "ETH-USDT", "1m", CLOSED - MINUTE, CLOSED, "hole"))
    await bench.work()
    assert [symbol for symbol, _, _ in bench.venue.asked] == ["ETH-USDT", "BTC-USDT"]
    progress = bench.backfill.progress("binance")
    assert progress is not None
    assert (progress.series_total, progress.series_done) == (1, 1)


async def test_a_hole_inside_a_waiting_check_goes_first_and_brings_it_along(bench: Bench) -> None:
    bench.backfill.check("binance", ["BTC-USDT"])
    bench.clock.advance(300)
    bench.backfill.check("binance", ["BTC-USDT"])
    bench.backfill.ask(Series("binance", "ETH-USDT", "1m", CLOSED, CLOSED + MINUTE, "start"))
    assert bench.backfill.ask(Series("binance", "BTC-USDT", "1m", CLOSED, CLOSED + MINUTE, "hole"))
    await bench.work()
    assert bench.venue.asked == [
        ("BTC-USDT", CLOSED, CLOSED + 5 * MINUTE),
        ("ETH-USDT", CLOSED, CLOSED + MINUTE),
    ]
    progress = bench.backfill.progress("binance")
    assert progress is not None
    assert (progress.series_total, progress.series_done) == (2, 2)


async def test_an_error_nobody_thought_of_costs_one_series_and_the_others_go_on(bench: Bench) -> None:
    bench.venue.cursed = "BTC-USDT"
    for symbol in ("BTC-USDT", "ETH-USDT"):
        bench.backfill.ask(Series("binance", symbol, "1m", CLOSED - MINUTE, CLOSED, "hole"))
    await bench.work()
    assert [symbol for symbol, _, _ in bench.venue.asked] == ["BTC-USDT", "ETH-USDT"]
    assert [message.symbol for message in bench.bus.messages] == ["ETH-USDT"]


async def test_answers_that_are_nothing_but_nonsense_hold_back_no_other_series(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(seconds: float, beat: object) -> None: ...

    monkeypatch.setattr(module, "_sleep", at_once)
    bench.venue.cursed, bench.venue.curse = "BTC-USDT", NonsenseError("no row of the answer could be read")
    for symbol in ("BTC-USDT", "ETH-USDT"):
        bench.backfill.ask(Series("binance", symbol, "1m", CLOSED - MINUTE, CLOSED, "hole"))
    await bench.work()
    assert [symbol for symbol, _, _ in bench.venue.asked] == ["BTC-USDT"] * NONSENSE_TIMES + ["ETH-USDT"]
    assert [message.symbol for message in bench.bus.messages] == ["ETH-USDT"]
