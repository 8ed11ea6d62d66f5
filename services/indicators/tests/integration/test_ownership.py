"""Shards change hands: killed owners, new replicas; nothing is lost, nothing counts twice, values stay the same."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.topics import CANDLES, Queue
from cryptopulse.indicators.application.market_state import MarketState

SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")
SHARDS = 2


async def ready(replica: Any) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=replica.url) as client:
        for _ in range(200):
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError("not ready")


def expected(trades: list[Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """Minutes by an independent fold of all trades."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for trade in trades:
        place = (trade.symbol, trade.event_us // 60_000_000 * 60_000)
        bar = found.setdefault(
            place,
            {"open": trade.price, "high": trade.price, "low": trade.price, "volume": Decimal(0), "trades": 0},
        )
        bar["high"], bar["low"] = max(bar["high"], trade.price), min(bar["low"], trade.price)
        bar["close"] = trade.price
        bar["volume"] += trade.size
        bar["trades"] += 1
    return found


async def all_in_snapshots(feed: Any, redis: Any) -> None:
    """Wait until the snapshots hold every trade, without a gap."""
    left: list[str] = []
    for _ in range(100):
        left = []
        for shard in range(SHARDS):
            packed = await redis.hget(keys.shard_snapshot("indicators", shard, SHARDS), "state")
            state = msgspec.msgpack.decode(packed, type=MarketState)
            for venue in state.venues.values():
                assert venue.ids.gaps == []
                if venue.ids.last_id != feed.ids["binance", venue.symbol]:
                    left.append(venue.symbol)
        if not left:
            break
        await asyncio.sleep(0.1)
    assert not left, "the snapshot does not hold the last trades"


async def all_minutes_stored(
    api: Any, wanted: dict[tuple[str, int], dict[str, Any]], last_minute: int
) -> None:
    """Every closed minute of every symbol is stored, once, with exactly the trades' figures."""
    for symbol in SYMBOLS:
        mine = {
            minute: bar for (name, minute), bar in wanted.items() if name == symbol and minute < last_minute
        }

        async def stored(symbol: str = symbol, mine: dict[int, Any] = mine) -> dict[int, Any]:
            page = await api.get(f"/candles/{symbol}", interval="1m", source="binance", limit=1000)
            rows = {row["open_time"]: row for row in page["data"] if row["closed"]}
            return rows if set(mine) <= set(rows) else {}

        rows: dict[int, Any] = {}
        for _ in range(300):
            rows = await stored()
            if rows:
                break
            await asyncio.sleep(0.1)
        assert rows, f"{symbol}: minutes are missing"
        for minute, bar in mine.items():
            row = rows[minute]
            got = {name: Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")} | {
                "trades": row["trades"]
            }
            assert got == bar, (symbol, minute)


@pytest.mark.timeout(180)
async def test_killed_owners_lose_nothing_and_double_nothing(
    launch: Callable[[], Any], feed: Any, bus: Any, redis: Any, make_api: Callable[[Any], Any]
) -> None:
    published: Counter[tuple[str, str, str, int, int]] = Counter()
    contents: dict[tuple[str, str, str, int, int], Candle] = {}
    conflicting = []

    async def on_candles(delivery: Delivery) -> None:
        for candle in delivery.message.candles:
            place = (candle.symbol, candle.source, candle.interval, candle.open_time, candle.revision)
            published[place] += 1
            if contents.setdefault(place, candle) != candle:
                conflicting.append((contents[place], candle))

    everything = Queue(consumer="t", topic=CANDLES, bindings=("batch.#", "live.#"), exclusive=True)
    await bus.subscribe(everything, on_candles)
    first, second = launch(), launch()
    await ready(first)
    await ready(second)
    await asyncio.sleep(2.5)
    feed.start_us -= 20 * 60_000_000
    sent: list[Any] = []
    third: Any = None
    for step in range(240):
        trades = [
            feed.trade(symbol, step * 10_000 + k * 100, 1000 + (step * 7 + k * 3 + len(symbol)) % 97, "0.125")
            for symbol in SYMBOLS
            for k in range(25)
        ]
        sent += trades
        await feed.send(*trades)
        if step == 80:
            first.stop(signal.SIGKILL)
        if step == 120:
            third = launch()
        if step == 180:
            second.stop(signal.SIGKILL)
        await asyncio.sleep(0.06)
    wanted = expected(sent)
    last_minute = max(minute for _, minute in wanted)
    await ready(third)
    api = make_api(third)
    await all_minutes_stored(api, wanted, last_minute)
    await api.client.aclose()
    assert not conflicting
    assert any(place[2] == "1s" for place in published)
    closed = {(p[0], p[3]) for p in published if p[1] == "binance" and p[2] == "1m"}
    assert {place for place in wanted if place[1] < last_minute} <= closed
    await all_in_snapshots(feed, redis)
