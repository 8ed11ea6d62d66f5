"""Every kind of condition through the running service: made over HTTP, stored, taken over, fired once by what comes over the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis_asyncio

from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.candles import Candle, CandleBatch
from cryptopulse.common.contracts.http.alert_conditions import CONDITION_TYPES
from cryptopulse.common.contracts.indicators import IndicatorBatch, IndicatorUpdate, Signal, Warmup
from cryptopulse.common.contracts.portfolio import PortfolioValueBatch, PortfolioValued
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.contracts.topics import (
    CANDLES,
    INDICATORS,
    INDICATORS_LIVE,
    PORTFOLIO_VALUES,
    SIGNALS,
    TICKS,
)
from cryptopulse.common.testing.builders import START_US, a_tick_batch, trades

from .conftest import Process, Service, until
from .test_alerts_route import SHARD, applied, send_price, send_trades, with_market

MINUTE = START_US // 60_000_000 * 60_000
COMMON: dict[str, Any] = {"symbol": "BTC-USD"}
VENUE: dict[str, Any] = {"symbol": "BTC-USDT", "source": "binance"}
ABOVE = {"type": "price_above", "value": "70000"}
CASES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (COMMON, ABOVE),
    (COMMON, {"type": "price_below", "value": "68500"}),
    (COMMON, {"type": "price_cross_up", "value": "70000"}),
    (COMMON, {"type": "price_cross_down", "value": "69500"}),
    (VENUE, {"type": "price_cross", "value": "70000"}),
    (COMMON, {"type": "price_enter_range", "low": "69900", "high": "70500"}),
    (COMMON, {"type": "price_exit_range", "low": "68900", "high": "69500"}),
    (COMMON, {"type": "pct_change", "pct": "1", "direction": "up", "window": "5m"}),
    (COMMON, {"type": "pct_change", "pct": "1", "ref": "since_created"}),
    (COMMON, {"type": "trailing", "pct": "2", "from": "high"}),
    (COMMON, {"type": "volume_spike", "factor": "3", "interval": "1m", "bars": 2}),
    (COMMON, {"type": "indicator", "output": "rsi_14", "interval": "1h", "op": "above", "value": "70"}),
    (COMMON, {"type": "indicator", "output": "macd", "interval": "1h", "op": "cross_up", "other": "macd_signal"}),
    (COMMON, {"type": "indicator", "output": "rsi_14", "interval": "1h", "op": "below", "value": "20", "on": "live"}),
    (COMMON, {"type": "signal", "kind": "golden_cross"}),
    ({"symbol": "BTC-USDT"}, {"type": "spread", "venue_a": "binance", "venue_b": "coinbase", "pct": "1"}),
    (VENUE, {"type": "stale_feed", "seconds": 5}),
    ({}, {"type": "portfolio_value", "portfolio_id": 7, "op": "above", "value": "1000"}),
    ({}, {"type": "portfolio_pnl_pct", "portfolio_id": 7, "op": "below", "value": "-10"}),
    ({}, {"type": "portfolio_allocation_pct", "portfolio_id": 7, "op": "above", "value": "60", "asset": "BTC"}),
    ({}, {"type": "new_listing", "quote": "USDT"}),
    (COMMON, {"type": "all", "conditions": [ABOVE, {"type": "not", "conditions": [{"type": "price_above", "value": "90000"}]}]}),
    (COMMON, {"type": "any", "conditions": [ABOVE, {"type": "price_below", "value": "1"}]}),
)  # fmt: skip


def candle(minute: int, volume: str) -> CandleBatch:
    one, size = Decimal(69000), Decimal(volume)
    found = Candle(
        "BTC-USD",
        "consolidated",
        "1m",
        MINUTE + minute * 60_000,
        one,
        one,
        one,
        one,
        size,
        size * one,
        5,
        size / 2,
    )
    return CandleBatch(shard=SHARD, epoch=1, interval="1m", candles=[found])


def indicators(hour: int, *, closed: bool, **values: float) -> IndicatorBatch:
    update = IndicatorUpdate(
        symbol="BTC-USD", source="consolidated", interval="1h", open_time=MINUTE + hour * 3_600_000, closed=closed,
        revision=0, as_of_us=START_US + hour * 3_600_000_000, seq=hour, values=dict(values),
        warmup=Warmup(have=500, needed=26, converged=True), close=69000.0,
    )  # fmt: skip
    return IndicatorBatch(shard=SHARD, epoch=1, interval="1h", updates=[update])


def valued(seq: int, value: str, pnl_pct: str, bitcoin: str) -> PortfolioValueBatch:
    value_of = PortfolioValued(
        user_id="ann", portfolio_id=7, version=1, snapshot_id=f"s{seq}", at_ms=START_US // 1000 + seq,
        base_currency="USD", value=Decimal(value), cost=Decimal(900), unrealised_pnl=Decimal(1),
        unrealised_pnl_pct=Decimal(pnl_pct), complete=True, allocation_pct={"BTC": Decimal(bitcoin)},
    )  # fmt: skip
    return PortfolioValueBatch(part=0, sent_us=1, values=[value_of])


async def with_a_new_pair(service: Service) -> None:
    client = redis_asyncio.Redis.from_url(service.redis_url)
    pairs = [
        Pair("BTC-USD", ["coinbase"]),
        Pair("BTC-USDT", ["binance", "coinbase"]),
        Pair("NEW-USDT", ["binance"]),
    ]
    catalogue = Catalogue(version=2, pairs=pairs, asset_coins={"BTC": "bitcoin"})
    await client.set(keys.CATALOGUE, msgspec.msgpack.encode(catalogue))
    await client.set(keys.CATALOGUE_VERSION, "2")
    await client.aclose()


async def everything_happens(service: Service) -> None:
    """Once what makes each condition true, after something that does not."""
    bus = service.bus
    for seq, price in enumerate(["69000", "70200", "68000"], start=1):
        await send_price(service, price, seq)
    await send_trades(service, ["69000", "70200"], first_id=1)
    far = trades(["70200", "71500"], first_id=1, start_us=START_US + 9_000)
    coinbase = msgspec.structs.replace(a_tick_batch(far, shard=SHARD), venue="coinbase")
    await bus.publish(TICKS, coinbase, key=f"batch.{SHARD}.coinbase")
    for minute, volume in enumerate(["1", "1", "9"]):
        await bus.publish(CANDLES, candle(minute, volume), key=f"batch.1m.{SHARD}", message_id=f"c{minute}")
    for hour, values in enumerate([{"rsi_14": 50.0, "macd": -1.0, "macd_signal": 1.0}, {"rsi_14": 75.0, "macd": 2.0, "macd_signal": 1.0}]):  # fmt: skip
        await bus.publish(
            INDICATORS,
            indicators(hour, closed=True, **values),
            key=f"closed.1h.{SHARD}",
            message_id=f"i{hour}",
        )
    for hour, rsi in ((2, 50.0), (3, 10.0)):
        await bus.publish(INDICATORS_LIVE, indicators(hour, closed=False, rsi_14=rsi), key=f"live.1h.{SHARD}")
    signal = Signal(
        id="s1", kind="golden_cross", symbol="BTC-USD", source="consolidated", interval="1h", open_time=MINUTE,
        status="confirmed", direction="up", at_us=START_US,
    )  # fmt: skip
    await bus.publish(SIGNALS, signal, key="signal.golden_cross.BTC-USD", message_id="s1")
    for seq, (value, pnl, share) in enumerate([("900", "0", "50"), ("1100", "-20", "80")]):
        await bus.publish(PORTFOLIO_VALUES, valued(seq, value, pnl, share), key="values.0")


@pytest.fixture
async def portfolios(process: Process) -> AsyncIterator[asyncio.Server]:
    """Where the service expects the portfolio service: portfolio 7 is there, no other."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[:2]
        found = asked in (["GET", "/portfolios/7"], ["PUT", "/watch"])
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}" % (b"200 OK" if found else b"404 No"))
        await writer.drain()
        writer.close()

    port = int(process.env["PORTFOLIO_URL"].rpartition(":")[2])
    server = await asyncio.start_server(handle, "127.0.0.1", port)
    yield server
    server.close()


async def test_a_rule_on_a_portfolio_that_is_not_there_is_refused(
    portfolios: asyncio.Server, service: Service
) -> None:
    ann = service.as_user("ann")
    condition = {"type": "portfolio_value", "portfolio_id": 8, "op": "above", "value": "1000"}
    for path in ("/alerts", "/alerts/validate"):
        answer = await ann.post(path, json={"condition": condition})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-portfolio")
        assert answer.json()["errors"][0]["pointer"] == "/condition/portfolio_id"
    made = await ann.post("/alerts", json={"condition": {**condition, "portfolio_id": 7}})
    assert made.status_code == 201, made.text
    portfolios.close()
    noted = await ann.patch(f"/alerts/{made.json()['id']}", json={"note": "whatever has become of it"})
    assert noted.status_code == 200, noted.text


@pytest.mark.timeout(120)
async def test_every_kind_of_condition_fires_once(portfolios: asyncio.Server, service: Service) -> None:
    await with_market(service)
    ann = service.as_user("ann", tier="pro")
    made: dict[str, dict[str, Any]] = {}
    for where, condition in CASES:
        answer = await ann.post("/alerts", json={**where, "condition": condition})
        assert answer.status_code == 201, (condition, answer.text)
        made[answer.json()["id"]] = condition
        read = (await ann.get(f"/alerts/{answer.json()['id']}")).json()
        assert read["condition"]["type"] == condition["type"]
    assert {condition["type"] for condition in made.values()} | {"not"} == set(CONDITION_TYPES)
    for rule_id in made:
        await applied(service, rule_id)
    await everything_happens(service)
    await with_a_new_pair(service)

    async def missing() -> list[dict[str, Any]]:
        rows = await service.fetch("SELECT rule_id FROM events WHERE type = 'alert.triggered'")
        return [
            condition
            for rule_id, condition in made.items()
            if rule_id not in {row["rule_id"] for row in rows}
        ]

    async def all_fired() -> bool:
        return not await missing()

    try:
        await until(all_fired, what="every rule fired", seconds=40)
    except AssertionError:
        assert await missing() == []
    counts = await service.fetch("SELECT rule_id, count(*) AS n FROM events GROUP BY rule_id")
    assert {row["n"] for row in counts} == {1}


async def test_a_rule_that_cannot_be_read_stops_no_other(service: Service) -> None:
    """As a release that knows more may leave it behind."""
    await with_market(service)
    ann = service.as_user("ann")
    odd = (await ann.post("/alerts", json={**COMMON, "condition": ABOVE})).json()["id"]
    await service.fetch(
        "UPDATE rules SET definition = jsonb_set(definition, '{condition,type}', '\"of_tomorrow\"') WHERE id = $1 RETURNING id",
        odd,
    )
    good = (await ann.post("/alerts", json={**COMMON, "condition": ABOVE})).json()["id"]
    await applied(service, good)
    service.process.kill()
    service.process.start()
    await service.process.ready()
    await send_price(service, "69000", 1)
    await send_price(service, "70200", 2)

    async def fired() -> bool:
        return bool(await service.fetch("SELECT 1 FROM events WHERE rule_id = $1", good))

    await until(fired, what="the good rule fired", seconds=30)
