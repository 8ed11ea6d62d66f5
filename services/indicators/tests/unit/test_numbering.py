"""Offsets of what is published: contiguous within an owner's epoch, the same when it is published again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptopulse.common.bus.routing import matches_any
from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.testing.builders import a_candle, a_price_update
from cryptopulse.indicators.adapters.publisher import BusMarketPublisher


class FakeBus:
    """Keeps what is published; the message whose turn is in `fails` is lost."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.keys: list[tuple[str, ...]] = []
        self.fails: set[int] = set()
        self.calls = 0

    async def publish(self, _topic: Any, message: Any, *, key: str, cc: Sequence[str] = (), **_: Any) -> None:
        self.calls += 1
        if self.calls in self.fails:
            raise BusUnavailable("away")
        self.sent.append(message)
        self.keys.append((key, *cc))


class Positions:
    """Keeps the newest position of each series."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[int, int]] = {}

    async def note(self, _key: Any, epoch: int, items: Sequence[Candle], offsets: Sequence[int]) -> None:
        for item, offset in zip(items, offsets, strict=True):
            self.known[item.symbol, item.interval] = (epoch, offset)


def a_publisher() -> tuple[FakeBus, Positions, BusMarketPublisher]:
    bus, positions = FakeBus(), Positions()
    return bus, positions, BusMarketPublisher(bus, ManualClock(), positions)  # type: ignore[arg-type]  # the two ports of a test


def told(bus: FakeBus) -> list[tuple[str, str, int, int, int]]:
    return [
        (bar.symbol, bar.interval, bar.open_time, batch.epoch, offset)
        for batch in bus.sent
        for bar, offset in zip(batch.candles, batch.offsets, strict=True)
    ]


async def test_every_series_counts_for_itself_from_one() -> None:
    bus, positions, publisher = a_publisher()
    first = [a_candle(open_time=0), a_candle(open_time=0, symbol="ETH-USD"), a_candle(open_time=60_000)]
    await publisher.candles(0, 7, first)
    await publisher.candles(0, 7, [a_candle(open_time=0, revision=1)])
    symbol = first[0].symbol
    assert [row[3:] for row in told(bus) if row[0] == symbol] == [(7, 1), (7, 2), (7, 3)]
    assert [row[3:] for row in told(bus) if row[0] == "ETH-USD"] == [(7, 1)]
    assert positions.known[symbol, "1m"] == (7, 3)


async def test_what_is_published_again_after_a_failure_keeps_its_number() -> None:
    bus, _, publisher = a_publisher()
    bus.fails = {2}
    bars = [a_candle(open_time=0), a_candle(open_time=0, interval="5m")]
    try:
        await publisher.candles(0, 7, bars)
    except BusUnavailable:
        await publisher.candles(0, 7, [*bars, a_candle(open_time=60_000)])
    assert [row[4] for row in told(bus) if row[1] == "1m"] == [1, 1, 2]
    assert [row[4] for row in told(bus) if row[1] == "5m"] == [1]


async def test_a_new_owner_begins_anew_under_his_epoch() -> None:
    bus, _, publisher = a_publisher()
    await publisher.candles(0, 7, [a_candle(open_time=0), a_candle(open_time=60_000)])
    await publisher.candles(0, 8, [a_candle(open_time=120_000)])
    assert [row[3:] for row in told(bus)] == [(7, 1), (7, 2), (8, 1)]


async def test_rates_that_every_replica_hears_are_told_apart_from_all_else_of_a_shard() -> None:
    bus, _, publisher = a_publisher()
    prices = [a_price_update(symbol=symbol) for symbol in ("BTC-USD", "USDT-USD", "ETH-USD")]
    await publisher.prices(0, 7, prices, [a_candle("BTC-USD", closed=False)])
    whole, rates = bus.sent
    assert [update.symbol for update in whole.prices] == ["BTC-USD", "USDT-USD", "ETH-USD"]
    assert [update.symbol for update in rates.prices] == ["USDT-USD"]
    assert bus.keys == [("batch.0", "price.BTC-USD", "price.ETH-USD"), ("rates.0", "price.USDT-USD")]
    await publisher.prices(0, 7, prices[:1], [])
    assert len(bus.sent) == 3


async def test_seconds_come_in_batches_of_500_under_keys_that_no_consumer_of_stored_candles_binds() -> None:
    bus, positions, publisher = a_publisher()
    bars = [
        a_candle(f"X{number}-USD", interval="1s", open_time=second)
        for second in (0, 1_000)
        for number in range(300)
    ]
    await publisher.seconds(3, 7, bars)
    assert [(batch.interval, len(batch.candles)) for batch in bus.sent] == [("1s", 500), ("1s", 100)]
    assert {row[4] for row in told(bus) if row[2] == 0} == {1}
    assert {row[4] for row in told(bus) if row[2] == 1_000} == {2}
    assert positions.known == {}
    for found in bus.keys:
        assert not matches_any(["batch.#", "batch.*.3", "candle.1m.#"], found)
        assert matches_any(["live.#"], found)
    await publisher.candles(3, 7, [a_candle(open_time=0)])
    assert told(bus)[-1][4] == 1
