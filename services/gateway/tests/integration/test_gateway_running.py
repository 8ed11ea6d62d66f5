"""The gateway on real servers: prices by bus and cold, accounts and keys in Postgres, limits in Redis, alerts to sockets, the drain."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jwt
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cryptopulse.common.cache import keys
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.prices import PriceBatch
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.contracts.topics import ALERT_EVENTS, PRICES, TICKS
from cryptopulse.common.testing.builders import a_price_update, a_trade
from cryptopulse.gateway.adapters.rate_limiter import RedisLimiter
from cryptopulse.gateway.domain.limits import Policy, gcra

CLOCK = SystemClock()


async def until(check: Any, seconds: float = 10) -> None:
    for _ in range(int(seconds / 0.05)):
        if await check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen in time")


def a_price(symbol: str = "BTC-USD", **more: Any) -> Any:
    now = CLOCK.now_us()
    return a_price_update(symbol=symbol, source="consolidated", event_us=now, received_us=now, **more)


def token(user: str = "ada", **claims: Any) -> dict[str, str]:
    body = {"sub": user, "exp": CLOCK.now_ms() // 1000 + 600, **claims}
    return {"Authorization": f"Bearer {jwt.encode(body, 'a-secret-of-at-least-thirty-two-bytes', 'HS256')}"}


async def hear(ws: Any, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(ws.recv(), 8))
        if message["type"] == kind:
            return message


async def test_a_price_travels_from_the_bus_to_http_and_sockets(gateway: Any) -> None:
    async with connect(f"ws://{gateway.url}/ws/crypto/", proxy=None) as ws:
        await hear(ws, "price_update")
        await gateway.redis.set(keys.CATALOGUE, msgspec.msgpack.encode(_catalogue()))
        await gateway.redis.set(keys.CATALOGUE_VERSION, 1)
        batch = PriceBatch(shard=0, epoch=1, sent_us=CLOCK.now_us(), prices=[a_price(price="67000", seq=1)])
        await gateway.bus.publish(PRICES, batch, key="batch.0")

        async def is_here() -> bool:
            return bool((await gateway.http.get("/prices/bitcoin")).status_code == 200)

        await until(is_here)
        assert (await gateway.http.get("/v1/prices/bitcoin")).json()["price"] == "67000"
        while True:
            update = await hear(ws, "price_update")
            if "bitcoin" in update["data"]:
                break
        assert update["data"]["bitcoin"]["usd"] == 67000


def _catalogue() -> Catalogue:
    from cryptopulse.common.contracts.catalogue import Coin

    coin = Coin(id="bitcoin", symbol="btc", name="Bitcoin")
    return Catalogue(
        version=1, pairs=[Pair("BTC-USD", ["binance"])], coins=[coin], asset_coins={"BTC": "bitcoin"}
    )


async def test_accounts_sessions_and_keys_live_in_postgres(gateway: Any) -> None:
    form = {"email": "ada@example.org", "password": "correct horse battery"}
    assert (await gateway.http.post("/v1/auth/register", json=form)).status_code == 201
    assert (await gateway.http.post("/v1/auth/register", json=form)).status_code == 409
    wrong = await gateway.http.post("/v1/auth/login", json={**form, "password": "wrong password"})
    assert wrong.status_code == 401
    pair = (await gateway.http.post("/v1/auth/login", json=form)).json()
    mine = {"Authorization": f"Bearer {pair['access_token']}"}
    assert (await gateway.http.get("/v1/me", headers=mine)).json()["email"] == form["email"]
    following = await gateway.http.post("/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
    assert following.status_code == 200
    assert len((await gateway.http.get("/v1/auth/sessions", headers=mine)).json()["data"]) == 1
    body = {"name": "bot", "scopes": ["alerts"], "addresses": ["127.0.0.0/8"]}
    made = (await gateway.http.post("/v1/api-keys", json=body, headers=mine)).json()
    by_key = await gateway.http.get("/v1/alerts", headers={"X-API-Key": made["key"]})
    assert by_key.status_code == 503
    changed = await gateway.http.patch(f"/v1/api-keys/{made['id']}", json={"name": "robot"}, headers=mine)
    assert changed.json()["name"] == "robot"
    rotated = await gateway.http.post(
        f"/v1/api-keys/{made['id']}/rotate", json={"overlap_seconds": 0}, headers=mine
    )
    assert rotated.status_code == 201
    assert (await gateway.http.get("/v1/alerts", headers={"X-API-Key": made["key"]})).status_code == 401
    listed = (await gateway.http.get("/v1/api-keys", headers=mine)).json()["data"]
    assert [row["id"] for row in listed] == [rotated.json()["id"]]
    change = {"old_password": form["password"], "new_password": "another long secret"}
    assert (await gateway.http.post("/v1/auth/password/change", json=change, headers=mine)).status_code == 204
    out = await gateway.http.post(
        "/v1/auth/logout", json={"refresh_token": following.json()["refresh_token"]}
    )
    assert out.status_code == 204
    assert (await gateway.http.get("/v1/me", headers=mine)).status_code == 401
    again = await gateway.http.post("/v1/auth/login", json={**form, "password": "another long secret"})
    mine = {"Authorization": f"Bearer {again.json()['access_token']}"}
    gone = await gateway.http.post("/v1/me/delete", json={"password": "another long secret"}, headers=mine)
    assert gone.status_code == 204
    assert (
        await gateway.http.post("/v1/auth/login", json={**form, "password": "another long secret"})
    ).status_code == 401


async def test_idempotent_answers_are_stored(gateway: Any) -> None:
    headers = {**token("carol"), "Idempotency-Key": "k-1"}
    body = {"name": "bot", "scopes": ["alerts"]}
    first = await gateway.http.post("/v1/api-keys", json=body, headers=headers)
    again = await gateway.http.post("/v1/api-keys", json=body, headers=headers)
    assert (first.status_code, again.status_code, again.json()["code"]) == (201, 409, "answer-not-kept")
    assert again.headers["idempotency-replayed"] == "true"
    key = f"/v1/api-keys/{first.json()['id']}"
    assert len((await gateway.http.get("/v1/api-keys", headers=token("carol"))).json()["data"]) == 1
    assert (await gateway.http.delete(key, headers=token("carol"))).status_code == 204
    bad = {**token("carol"), "Idempotency-Key": "k-3"}
    refused = [await gateway.http.post("/v1/api-keys", json={"name": ""}, headers=bad) for _ in range(2)]
    assert [answer.status_code for answer in refused] == [422, 422]
    other = await gateway.http.post("/v1/api-keys", json={**body, "name": "x"}, headers=headers)
    assert other.status_code == 422
    away = {**token("carol"), "Idempotency-Key": "k-2"}
    for _ in range(2):
        assert (await gateway.http.post("/v1/alerts", json={}, headers=away)).status_code == 503


async def test_limits_hold_in_redis(gateway: Any) -> None:
    batch = PriceBatch(shard=0, epoch=1, sent_us=CLOCK.now_us(), prices=[a_price(seq=1)])
    await gateway.bus.publish(PRICES, batch, key="batch.0")
    headers = token("dave", tier="pro")
    codes = [(await gateway.http.get("/v1/time", headers=headers)).status_code for _ in range(14)]
    assert 9 <= codes.count(200) <= 11
    assert codes[-1] == 429


async def test_the_script_decides_as_the_formula_does(redis_db: str) -> None:
    from redis.asyncio import Redis

    redis = Redis.from_url(redis_db)
    limiter = RedisLimiter(redis, CLOCK)
    policy = Policy("p", 60_000, 60, 50)
    verdicts = [await limiter.take(policy, f"u{n % 2}", 1, open_on_failure=False) for n in range(10)]
    assert all(verdict is not None and verdict.allowed for verdict in verdicts)
    tight = Policy("t", 60, 60, 5)
    tat, now, expected = 0.0, 1e6, []
    for _ in range(8):
        verdict, tat = gcra(tight, tat, now, 1)
        expected.append(verdict.allowed)
    fresh = [RedisLimiter(redis, CLOCK) for _ in range(8)]
    found = [await one.take(tight, "u", 1, open_on_failure=False) for one in fresh]
    assert [verdict.allowed for verdict in found if verdict] == expected
    assert found[-1] is not None
    assert found[-1].retry_us > 0
    await redis.aclose()


async def test_busy_callers_lease_and_the_total_stays_exact(redis_db: str) -> None:
    from redis.asyncio import Redis

    redis = Redis.from_url(redis_db)
    policy = Policy("lease", 60, 600, 400)
    gateways = [RedisLimiter(redis, CLOCK) for _ in range(3)]
    allowed = 0
    for number in range(900):
        verdict = await gateways[number % 3].take(policy, "u", 1, open_on_failure=False)
        allowed += verdict is not None and verdict.allowed
    assert 400 - 3 * 40 <= allowed <= 402
    await redis.aclose()


async def test_an_alert_reaches_its_owners_socket(gateway: Any) -> None:
    async with connect(f"ws://{gateway.url}/v1/ws", proxy=None, additional_headers=token("ada")) as ws:
        await ws.send(json.dumps({"op": "subscribe", "channels": [{"ch": "alerts"}]}))
        await hear(ws, "ack")
        event = AlertEvent(
            id="ae_1", type="alert.triggered", user_id="ada", rule_id="al_1", dedupe_key="k", at_ms=CLOCK.now_ms(),
            symbol="BTC-USD", source="consolidated", condition="price_above", message="up",
        )  # fmt: skip
        await gateway.bus.publish(ALERT_EVENTS, event, key="alert.ada.al_1")
        assert (await hear(ws, "alert"))["event_id"] == "ae_1"


async def test_trades_are_bound_only_while_somebody_listens(gateway: Any) -> None:
    await gateway.redis.set(keys.CATALOGUE, msgspec.msgpack.encode(_catalogue()))
    await gateway.redis.set(keys.CATALOGUE_VERSION, 1)

    async def send(number: int) -> None:
        batch = TickBatch(venue="binance", shard=0, epoch=1, seq=number, sent_us=CLOCK.now_us(),
                          trades=[a_trade(symbol="BTC-USD", trade_id=number)])  # fmt: skip
        await gateway.bus.publish(TICKS, batch, key="batch.0.binance", cc=["tick.binance.BTC-USD"])

    async with connect(f"ws://{gateway.url}/v1/ws", proxy=None) as ws:
        for _ in range(40):
            await ws.send(
                json.dumps({"op": "subscribe", "channels": [{"ch": "trades", "symbols": ["BTC-USD"]}]})
            )
            ack = await hear(ws, "ack")
            if ack["subscribed"]:
                break
            await asyncio.sleep(0.3)
        await asyncio.sleep(0.3)
        await send(1)
        assert (await hear(ws, "update"))["data"]["id"] == 1


async def test_a_drain_says_farewell_then_closes(gateway: Any) -> None:
    async with connect(f"ws://{gateway.url}/v1/ws", proxy=None) as ws:
        await hear(ws, "welcome")
        gateway.signals.stop.set()
        assert (await hear(ws, "going_away"))["reconnect_after_ms"] >= 0
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(ws.recv(), 8)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
    await asyncio.wait_for(gateway.task, 20)
