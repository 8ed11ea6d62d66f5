"""A rule over HTTP, a tick over the bus, an event in Postgres, on the bus and at the webhook; and what survives a kill."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import redis.asyncio as redis_asyncio
from standardwebhooks import Webhook

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.prices import PriceBatch
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.contracts.topics import ALERT_EVENTS, PRICES, TICKS, Queue, shard_of
from cryptopulse.common.testing.builders import START_US, a_price_update, a_tick_batch, trades

from .conftest import Receiver, Service, owns_all_shards, until

SHARD = shard_of("BTC", 2)


async def with_market(service: Service, price: str = "69000") -> None:
    """A catalogue with BTC, and its latest prices, in Redis."""
    client = redis_asyncio.Redis.from_url(service.redis_url)
    catalogue = Catalogue(
        version=1,
        pairs=[Pair("BTC-USD", ["coinbase"]), Pair("BTC-USDT", ["binance"])],
        asset_coins={"BTC": "bitcoin"},
    )
    await client.set(keys.CATALOGUE, msgspec.msgpack.encode(catalogue))
    await client.set(keys.CATALOGUE_VERSION, "1")
    await client.set(keys.price("BTC-USD"), msgspec.msgpack.encode(a_price_update(price=price)))
    await client.set(
        keys.venue_price("BTC-USDT", "binance"),
        msgspec.msgpack.encode(a_price_update("BTC-USDT", source="binance", price=price)),
    )
    await client.aclose()


async def send_price(service: Service, price: str, seq: int, **more: Any) -> None:
    update = a_price_update(price=price, seq=seq, event_us=START_US + seq * 100_000, **more)
    await service.bus.publish(
        PRICES, PriceBatch(shard=SHARD, epoch=1, sent_us=1, prices=[update]), key=f"batch.{SHARD}"
    )


async def send_trades(service: Service, prices: list[str], first_id: int) -> None:
    batch = a_tick_batch(
        trades(prices, first_id=first_id, start_us=START_US + first_id * 1000, step_us=1000), shard=SHARD
    )
    await service.bus.publish(TICKS, batch, key=f"batch.{SHARD}.binance")


async def heard_events(service: Service) -> list[AlertEvent]:
    heard: list[AlertEvent] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(delivery.message)

    queue = Queue(consumer="test", topic=ALERT_EVENTS, bindings=("alert.#",), exclusive=True)
    subscription = await service.bus.subscribe(queue, hear)
    await until(lambda: subscription.active, what="subscription")
    return heard


async def applied(service: Service, rule_id: str) -> None:
    """Until the engine has taken the rule over."""

    async def taken() -> bool:
        rows = await service.fetch("SELECT runtime FROM rules WHERE id = $1", rule_id)
        return bool(rows and rows[0]["runtime"].get("evaluated"))

    await until(taken, what="the rule is evaluated", seconds=5)


async def test_a_short_form_rule_fires_once_on_socket_bus_and_webhook(
    service: Service, receiver: Receiver
) -> None:
    await with_market(service)
    heard = await heard_events(service)
    ann = service.as_user("ann")
    made = await ann.post(
        "/alerts",
        json={"symbol": "BTC", "condition": "above", "price": "70000", "webhook_url": receiver.url},
    )
    assert made.status_code == 201, made.text
    body = made.json()
    assert (body["state"], body["currently_true"], body["symbol"]) == ("armed", False, "BTC-USD")
    secret = body["webhook"]["secret"]
    await applied(service, body["id"])
    for seq, price in enumerate(["69000", "69999.99", "70000", "70001", "69000", "71000"], start=1):
        await send_price(service, price, seq)
    await until(lambda: len(heard) == 1 and len(receiver.requests) == 1, what="event and webhook")
    headers, raw = receiver.requests[0]
    told = Webhook(secret).verify(raw, headers)
    assert told["type"] == "alert.triggered"
    assert told["data"]["alert_id"] == body["id"]
    assert Decimal(told["data"]["price"]) == 70000
    assert headers["webhook-id"] == heard[0].id
    assert heard[0].user_id == "ann"
    shown = (await ann.get(f"/alerts/{body['id']}")).json()
    assert (shown["state"], shown["triggered_count"]) == ("completed", 1)
    await asyncio.sleep(0.5)
    assert len(heard) == len(receiver.requests) == 1
    events = (await ann.get("/alert-events", params={"unacked": True})).json()["data"]
    assert [event["id"] for event in events] == [heard[0].id]
    assert (await ann.post(f"/alert-events/{heard[0].id}/ack")).status_code == 200
    assert (await ann.get("/alert-events", params={"unacked": True})).json()["data"] == []


async def test_what_is_anothers_looks_like_what_is_not_there(service: Service, receiver: Receiver) -> None:
    await with_market(service)
    ann, bob = service.as_user("ann"), service.as_user("bob")
    rule = (await ann.post("/alerts", json={"symbol": "BTC", "condition": "above", "price": "70000"})).json()
    hook = (await ann.post("/webhooks", json={"url": receiver.url})).json()
    test = (await ann.post(f"/webhooks/{hook['id']}/test")).json()
    event = (await ann.post(f"/alerts/{rule['id']}/test")).json()
    missing = "al_" + "0" * 32
    for method, path in [
        ("GET", "/alerts/{}"),
        ("PATCH", "/alerts/{}"),
        ("DELETE", "/alerts/{}"),
        ("POST", "/alerts/{}/pause"),
        ("POST", "/alerts/{}/resume"),
        ("POST", "/alerts/{}/rearm"),
        ("POST", "/alerts/{}/test"),
        ("GET", "/alerts/{}/events"),
    ]:
        json = {"note": "mine"} if method == "PATCH" else None
        theirs = await bob.request(method, path.format(rule["id"]), json=json)
        nobodys = await bob.request(method, path.format(missing), json=json)
        assert theirs.status_code == nobodys.status_code == 404, (method, path, theirs.text)
        assert theirs.json()["detail"] == nobodys.json()["detail"]
    for method, path in [
        ("GET", f"/webhooks/{hook['id']}"),
        ("DELETE", f"/webhooks/{hook['id']}"),
        ("POST", f"/webhooks/{hook['id']}/test"),
        ("POST", f"/webhooks/{hook['id']}/rotate-secret"),
        ("POST", f"/webhooks/{hook['id']}/enable"),
        ("GET", f"/webhooks/{hook['id']}/deliveries"),
        ("GET", f"/webhooks/{hook['id']}/deliveries/{test['id']}"),
        ("POST", f"/webhooks/{hook['id']}/deliveries/{test['id']}/replay"),
        ("POST", f"/webhooks/{hook['id']}/replay?since=2020-01-01T00:00:00Z"),
        ("GET", f"/alert-events/{event['id']}"),
        ("POST", f"/alert-events/{event['id']}/ack"),
    ]:
        assert (await bob.request(method, path)).status_code == 404, (method, path)
    answer = await bob.post(
        "/alerts",
        json={"symbol": "BTC", "condition": "above", "price": "70000", "webhook_ids": [hook["id"]]},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown-webhook")
    assert (await bob.get("/alerts")).json()["data"] == []
    assert (await ann.get(f"/alerts/{rule['id']}")).status_code == 200


async def test_without_the_user_the_service_role_sees_no_rows(service: Service) -> None:
    await with_market(service)
    await service.as_user("ann").post(
        "/alerts", json={"symbol": "BTC", "condition": "above", "price": "70000"}
    )
    async with service.db.transaction() as conn:
        assert await conn.fetchval("SELECT count(*) FROM rules") == 0
    async with service.db.transaction("bob") as conn:
        assert await conn.fetchval("SELECT count(*) FROM rules") == 0
    async with service.db.transaction("ann") as conn:
        assert await conn.fetchval("SELECT count(*) FROM rules") == 1


async def test_ticks_of_a_venue_fire_each_threshold_of_a_jump_once_and_a_kill_changes_nothing(
    service: Service, receiver: Receiver
) -> None:
    await with_market(service)
    heard = await heard_events(service)
    ann = service.as_user("ann")
    rules = []
    for step in range(20):
        made = await ann.post(
            "/alerts",
            json={
                "symbol": "BTC-USDT",
                "condition": {"type": "price_cross_up", "value": str(70000 + step)},
                "trigger": "every_cross",
            },
        )
        assert made.status_code == 201, made.text
        assert made.json()["source"] == "binance"
        rules.append(made.json()["id"])
    await applied(service, rules[-1])
    await send_trades(service, ["69000", "69500"], 1)
    await send_trades(service, ["71000", "71000", "70500"], 3)
    await until(lambda: len(heard) == 20, what="20 events")
    service.process.kill()
    await send_trades(service, ["69000", "71000"], 3)
    await send_trades(service, ["70500", "69000", "70005", "70004"], 5)
    service.process.log.write_text("")
    service.process.start()
    await service.process.ready()
    await owns_all_shards(service)

    def told() -> set[str]:
        # Killed between a confirm and its mark, an event is published again: under the same id, which consumers drop.
        return {event.dedupe_key for event in heard}

    await until(lambda: len(told()) == 26, what="six more thresholds crossed again", seconds=15)
    await asyncio.sleep(1.0)
    rows = await service.fetch("SELECT rule_id, count(*) AS n FROM events GROUP BY 1 ORDER BY 1")
    assert sorted(row["n"] for row in rows) == [1] * 14 + [2] * 6
    assert len(told()) == 26


async def test_a_change_of_a_rule_is_applied_within_a_second(service: Service) -> None:
    await with_market(service)
    heard = await heard_events(service)
    ann = service.as_user("ann")
    rule = (await ann.post("/alerts", json={"symbol": "BTC", "condition": "above", "price": "70000"})).json()
    await applied(service, rule["id"])
    await send_price(service, "69000", 1)
    changed = await ann.patch(
        f"/alerts/{rule['id']}",
        json={"condition": {"type": "price_above", "value": "80000"}},
        headers={"If-Match": '"1"'},
    )
    assert changed.status_code == 200, changed.text
    stale = await ann.patch(f"/alerts/{rule['id']}", json={"note": "x"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    await asyncio.sleep(1.0)
    await send_price(service, "75000", 2)
    await asyncio.sleep(0.5)
    assert heard == []
    await send_price(service, "80000", 3)
    await until(lambda: len(heard) == 1, what="the changed rule")
    deleted = (
        await ann.post("/alerts", json={"symbol": "BTC", "condition": "below", "price": "60000"})
    ).json()
    await applied(service, deleted["id"])
    assert (await ann.delete(f"/alerts/{deleted['id']}")).status_code == 204
    await asyncio.sleep(1.0)
    await send_price(service, "50000", 4)
    await asyncio.sleep(0.5)
    assert len(heard) == 1


async def test_refusals_name_the_field_and_the_fix(service: Service) -> None:
    await with_market(service)
    ann = service.as_user("ann")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"symbol": "NOPE", "condition": "above", "price": "1"}, "unknown-symbol"),
        ({"symbol": "BTC", "condition": "above"}, ""),
        ({"symbol": "BTC", "condition": "above", "price": "-1"}, ""),
        ({"symbol": "BTC", "condition": {"type": "magic"}}, ""),
        ({"symbol": "BTC", "condition": "above", "price": "1", "owner_id": "x"}, ""),
        (
            {"symbol": "BTC", "condition": "above", "price": "1", "webhook_url": "https://10.0.0.1/"},
            "webhook-url-refused",
        ),
        ({"symbol": "BTC", "condition": "above", "price": "1", "expires_at": "2020-01-01T00:00:00Z"}, ""),
        ({"condition": {"type": "price_above", "value": "1"}}, "symbol-needed"),
        (
            {"symbol": "BTC-USDT", "source": "consolidated", "condition": "above", "price": "1"},
            "no-consolidated-price",
        ),
    ]
    for body, code in cases:
        answer = await ann.post(
            "/alerts", content=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["errors"], body
        if code:
            assert answer.json()["code"] == code, answer.text
    made = await ann.post("/alerts", json={"symbol": "BTC", "condition": "cross", "price": "1"})
    path = f"/alerts/{made.json()['id']}"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"for_seconds": 5}, "/"),
        ({"condition": None}, "/condition"),
        ({"source": None}, "/source"),
        ({"cooldown_seconds": 60}, "/"),
        ({"bar_interval": "1m"}, "/"),
        ({"symbol": "NOPE"}, "/symbol"),
    ]
    for change, pointer in changes:
        refused = await ann.patch(path, json=change)
        assert refused.status_code == 422, (change, refused.text)
        assert refused.json()["errors"][0]["pointer"] == pointer, (change, refused.text)
    for change in (
        {"webhook_ids": None},
        {"trigger": "recurring", "cooldown_seconds": 60},
        {"trigger": "once"},
    ):
        changed = await ann.patch(path, json=change)
        assert changed.status_code == 200, (change, changed.text)
    assert (await ann.get(path)).json()["cooldown_seconds"] is None
    anonymous = await ann.get("/alerts", headers={"Authorization": "Bearer nonsense"})
    assert anonymous.status_code == 401


async def test_a_terminated_service_drains_and_ends_with_zero(service: Service) -> None:
    assert await asyncio.to_thread(service.process.stop) == 0
