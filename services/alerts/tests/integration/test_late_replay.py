"""Down while the price crossed: the candles of the time in between tell it late, once, with its minute; a budget bounds a storm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from cryptopulse.common.contracts.topics import TICKS
from cryptopulse.common.testing.builders import START_US, a_tick_batch, a_trade

from .conftest import Process, Service, owns_all_shards, until
from .test_alerts_route import SHARD, applied, heard_events, with_market

MINUTE = 60_000
T0 = START_US // 1000 // MINUTE * MINUTE


class Candles:
    """The candles of BTC-USDT as the indicators service serves them: minute -> (low, high, close)."""

    def __init__(self) -> None:
        self.bars: dict[int, tuple[str, str, str]] = {}
        self.asked: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        self.asked.append(target)
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        since, until_ms = int(query["from"]), int(query["to"])
        rows = [
            {
                "open_time": at, "open": close, "low": low, "high": high, "close": close, "volume": "1", "quote_volume": "1",
                "trades": 1, "taker_buy_volume": "1", "closed": True, "complete": True, "revision": 0,
            }
            for at, (low, high, close) in sorted(self.bars.items())
            if since <= at < until_ms
        ]  # fmt: skip
        body = orjson.dumps({"data": rows, "next_cursor": None})
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        await writer.drain()
        writer.close()


@pytest.fixture
async def candles(process: Process) -> AsyncIterator[Candles]:
    """Served where the service expects the indicators service; comes before `service` starts."""
    found = Candles()
    port = int(process.env["INDICATORS_URL"].rpartition(":")[2])
    server = await asyncio.start_server(found.handle, "127.0.0.1", port)
    yield found
    server.close()


async def trade(service: Service, price: str, number: int, at_ms: int) -> None:
    batch = a_tick_batch([a_trade(price=price, trade_id=number, event_us=at_ms * 1000)], shard=SHARD)
    await service.bus.publish(TICKS, batch, key=f"batch.{SHARD}.binance")


async def test_a_crossing_during_a_downtime_is_told_late_with_its_minute(
    candles: Candles, service: Service
) -> None:
    await with_market(service)
    heard = await heard_events(service)
    ann = service.as_user("ann")
    made = []
    for condition in ("above", "below"):
        body = {
            "symbol": "BTC-USDT",
            "condition": condition,
            "price": "70000" if condition == "above" else "60000",
        }
        made.append((await ann.post("/alerts", json=body)).json()["id"])
    await applied(service, made[-1])
    # Rules are of today, prices of a recording: armed before the first of them.
    await service.fetch("UPDATE rules SET armed_at = to_timestamp(0)")
    await trade(service, "69000", 1, T0 + 10_000)

    async def stored() -> bool:
        return (
            len(await service.fetch("SELECT FROM positions WHERE source = 'binance' AND sequence = 1")) == 1
        )

    await until(stored, what="the position")
    service.process.kill()
    for minute, bar in enumerate(
        [
            ("68900", "69100", "69000"),
            ("68000", "70500", "69500"),
            ("69000", "69900", "69100"),
            ("69000", "69200", "69150"),
        ]
    ):
        candles.bars[T0 + minute * MINUTE] = bar
    service.process.log.write_text("")
    service.process.start()
    await service.process.ready()
    await owns_all_shards(service)
    await trade(service, "69150", 900, T0 + 3 * MINUTE + 30_000)
    await until(lambda: len(heard) == 1, what="the late event", seconds=15)
    event = heard[0]
    assert (event.rule_id, event.late, event.data["minute"]) == (made[0], True, T0 + MINUTE)
    assert event.data["crossed_between"] == [T0 + MINUTE, T0 + 2 * MINUTE]
    (row,) = await service.fetch("SELECT count(*) AS n FROM events")
    assert row["n"] == 1


async def test_a_storm_is_stored_once_each_and_told_within_the_budget(service: Service) -> None:
    await with_market(service)
    heard = await heard_events(service)
    ann = service.as_user("ann", tier="pro")
    first = (
        await ann.post("/alerts", json={"symbol": "BTC-USDT", "condition": "above", "price": "70000"})
    ).json()["id"]
    await service.fetch(
        "INSERT INTO rules (id, user_id, state, symbol, type, home, definition, created_price)"
        " SELECT 'al_' || lpad(n::text, 32, '0'), 'ann', state, symbol, type, home, definition, created_price"
        " FROM rules, generate_series(1, 2000) n WHERE id = $1",
        first,
    )
    await service.fetch("SELECT pg_notify('alerts_rules', id) FROM rules")
    await applied(service, "al_" + "2000".zfill(32))
    await trade(service, "69000", 1, T0)
    await trade(service, "71000", 2, T0 + 1)

    async def all_stored() -> bool:
        return len(await service.fetch("SELECT FROM events")) == 2001

    await until(all_stored, what="2,001 events", seconds=20)
    await until(lambda: len(heard) >= 600, what="600 notifications", seconds=10)
    await asyncio.sleep(0.5)
    (budget,) = await service.fetch("SELECT sum(used) AS used, sum(suppressed) AS silent FROM budgets")
    assert budget["used"] == 2001
    assert len([event for event in heard if event.type == "alert.triggered"]) == 2001 - budget["silent"]
