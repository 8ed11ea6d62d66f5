"""Repairs against a venue that fails for long: the stream goes on, the trades come late, the rest is declared exactly."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.ticks import LATE, Trade
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.application import repair as module
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.repair import Repair
from cryptopulse.ingestor.domain.ordering import Gap

AT = 1_700_000_000_000_000


def a_trade(n: int) -> Trade:
    return Trade("BTC-USDT", n, Decimal(100), Decimal(1), "buy", AT + n, AT + n)


class Sink:
    """A publisher that keeps trades."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []

    def add_trade(self, trade: Trade) -> None:
        self.trades.append(trade)


class Failing:
    """A venue whose REST fails until told, and then has some trades."""

    name = "v"
    repair_limit = 1_000

    def __init__(self, has: set[int]) -> None:
        self.has = has
        self.is_up = False
        self.defect: Exception | None = None

    def native_by_rule(self, symbol: str) -> str:
        return symbol

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        if self.defect is not None:
            raise self.defect
        if not self.is_up:
            raise UpstreamUnavailable("HTTP 418", retry_after_seconds=0.01)
        return [a_trade(n) for n in sorted(self.has) if gap.first_id <= n <= gap.last_id]


async def test_a_repair_that_takes_too_long_goes_on_beside_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REPAIR_SECONDS", 0.05)
    sink, venue = Sink(), Failing({2, 3, 4, 6})
    lost: list[Gap] = []
    publisher: Any = sink
    fake: Any = venue
    ingest = Ingest("v", SystemClock(), [publisher], hold_us=0, shards=1)
    repair = Repair(fake, ingest, SystemClock(), {}, on_loss=lost.append)
    ingest.trades([a_trade(1), a_trade(7)])
    repair.tick()
    await asyncio.sleep(0.3)
    ingest.trade(a_trade(8))
    assert [trade.trade_id for trade in sink.trades] == [1, 7, 8]
    assert lost == []
    assert repair.running == 1
    venue.is_up = True
    async with asyncio.timeout(10):
        while repair.running:
            await asyncio.sleep(0.01)
    assert [trade.trade_id for trade in sink.trades] == [1, 7, 8, 2, 3, 4, 6]
    assert all(trade.flags & LATE for trade in sink.trades[3:])
    assert [(gap.first_id, gap.last_id) for gap in lost] == [(5, 5)]
    assert [(gap.first_id, gap.last_id) for gap in repair.gaps] == [(5, 5)]
    await repair.close()


async def test_an_error_nobody_thought_of_does_not_hold_back_what_waits_behind_the_gap() -> None:
    sink, venue = Sink(), Failing(set())
    venue.defect = ZeroDivisionError("unthinkable")
    publisher: Any = sink
    fake: Any = venue
    ingest = Ingest("v", SystemClock(), [publisher], hold_us=0, shards=1)
    repair = Repair(fake, ingest, SystemClock(), {}, on_loss=lambda _: None)
    ingest.trades([a_trade(1), a_trade(7)])
    repair.tick()
    async with asyncio.timeout(10):
        while repair.running:
            await asyncio.sleep(0.01)
    ingest.trade(a_trade(8))
    assert [trade.trade_id for trade in sink.trades] == [1, 7, 8]
    assert [(gap.first_id, gap.last_id) for gap in repair.gaps] == [(2, 6)]
