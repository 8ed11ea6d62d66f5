"""Live values over the bus: equal to HTTP at the same snapshot, at most one a second, only for the watched."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.prices import PriceBatch, PriceUpdate
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, PORTFOLIO_VALUES, PRICES, Queue


async def test_watched_values_equal_http_and_changes_are_announced(service: Any) -> None:
    bus = RabbitBus(service.settings.rabbitmq_url.get_secret_value(), service="gateway")
    await bus.start()
    values: list[Any] = []
    events: list[Any] = []

    async def on_value(delivery: Any) -> None:
        values.extend(delivery.message.values)

    async def on_event(delivery: Any) -> None:
        events.append(delivery.message)

    await bus.subscribe(
        Queue(consumer="gateway", topic=PORTFOLIO_VALUES, bindings=("values.#",), exclusive=True), on_value
    )
    await bus.subscribe(
        Queue(consumer="gateway", topic=PORTFOLIO_EVENTS, bindings=("portfolio.#",), exclusive=True), on_event
    )
    await asyncio.sleep(0.5)
    await service.price("BTC", "100")
    alice = service.as_user("alice")
    number = (await alice.post("/portfolios", content='{"name":"live"}')).json()["id"]
    body = {"type": "buy", "asset": "BTC", "quantity": "2", "price": "50", "fee": "1"}
    await alice.post(f"/portfolios/{number}/transactions", content=json.dumps(body))
    unwatched = (await alice.post("/portfolios", content='{"name":"quiet"}')).json()["id"]
    gateway = service.as_user(None, kind="service")
    watched = await gateway.put(
        "/watch", content=json.dumps({"portfolio_ids": [number, 10**12], "ttl_seconds": 30})
    )
    assert watched.status_code == 200, watched.text

    await until(lambda: values)
    rest = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert values[-1].snapshot_id == rest["snapshot_id"]
    assert str(values[-1].value) == rest["totals"]["value"] == "200"
    assert str(values[-1].unrealised_pnl) == rest["totals"]["unrealised_pnl"] == "99"
    assert values[-1].holdings[0]["value"] == rest["holdings"][0]["value"]
    assert values[-1].user_id == "alice"

    now = SystemClock().now_us()
    price = Decimal("100.123456789")
    update = PriceUpdate(
        symbol="BTC-USD", source="consolidated", price=price, low=price, high=price, epoch=2, seq=1, event_us=now, received_us=now,
    )  # fmt: skip
    await bus.publish(PRICES, PriceBatch(shard=0, epoch=2, sent_us=now, prices=[update]), key="batch.0")
    await until(lambda: values[-1].value == price * 2)
    seqs = [value.seq for value in values]
    assert seqs == sorted(set(seqs))

    await alice.post(f"/portfolios/{number}/transactions", content=json.dumps(body))
    await until(lambda: values[-1].value == price * 4)
    assert values[-1].version == 3
    await until(lambda: len([e for e in events if e.portfolio_id == number]) == 2)
    assert {e.kind for e in events} == {"recorded"}
    assert all(value.portfolio_id != unwatched for value in values)
    await bus.close()


async def until(condition: Any, seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
