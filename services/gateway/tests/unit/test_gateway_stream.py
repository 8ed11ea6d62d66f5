"""`/v1/ws` on a real server: acks, snapshots, updates, resume, conflation, private channels, refusals and close codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import urlsafe_b64encode
from decimal import Decimal
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State

from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.candles import CandleBatch
from cryptopulse.common.contracts.portfolio import PortfolioValueBatch, PortfolioValued
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.testing.builders import a_candle, a_trade


async def say(ws: Any, **message: Any) -> None:
    await ws.send(json.dumps(message))


def ticker(*symbols: str, **more: Any) -> list[dict[str, Any]]:
    return [{"ch": "ticker", "symbols": list(symbols), "every_ms": 0, **more}]


def a_batch(first: int, last: int, *, venue: str = "binance", epoch: int = 7) -> TickBatch:
    """Trades of BTC-USDT by id, numbered by the same ids."""
    trades = [a_trade(symbol="BTC-USDT", trade_id=number) for number in range(first, last + 1)]
    return TickBatch(
        venue=venue, shard=0, epoch=epoch, seq=first, sent_us=0, trades=trades, offsets={"BTC-USDT": first}
    )


async def closed(ws: Any) -> int:
    while ws.state is not State.CLOSED:
        with contextlib.suppress(ConnectionClosed):
            await asyncio.wait_for(ws.recv(), 5)
    return int(ws.close_code)


async def test_ack_snapshot_then_contiguous_updates_in_one_schema(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "100", seq=7)
    async with gateway.ws() as ws:
        assert (await listen(ws))["type"] == "welcome"
        await say(ws, op="subscribe", id=1, channels=ticker("btc"))
        ack = await listen(ws)
        assert (ack["type"], ack["id"], ack["ok"]) == ("ack", 1, True)
        entry = ack["subscribed"][0]
        assert (entry["ch"], entry["symbol"], entry["epoch"], entry["offset"]) == (
            "ticker",
            "BTC-USD",
            "1",
            7,
        )
        snapshot = await listen(ws)
        assert (snapshot["type"], snapshot["sid"], snapshot["data"]["p"]) == ("snapshot", entry["sid"], "100")
        gateway.price("BTC-USD", "101", seq=8)
        gateway.price("BTC-USD", "102", seq=9)
        first, second = await listen(ws), await listen(ws)
        assert [first["offset"], second["offset"]] == [8, 9]
        assert first["type"] == "update"
        assert first["data"].keys() == snapshot["data"].keys()
        assert "skipped" not in first


async def test_each_symbol_gets_its_own_result(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        channels = [
            *ticker("BTC", "FOOBAR"),
            {"ch": "nonsense"},
            {"ch": "candles:7m", "symbols": ["BTC"]},
            {"ch": "alerts"},
        ]
        await say(ws, op="subscribe", id="x", channels=channels)
        ack = await listen(ws, "ack")
        assert ack["ok"] is False
        assert [row["symbol"] for row in ack["subscribed"]] == ["BTC-USD"]
        codes = {(row["ch"], row["code"]) for row in ack["rejected"]}
        assert codes == {
            ("ticker", "unknown_symbol"),
            ("nonsense", "unknown_channel"),
            ("candles:7m", "unknown_interval"),
            ("alerts", "unauthenticated"),
        }


async def test_conflated_updates_count_what_they_skip(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "100", seq=1)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", id=1, channels=ticker("BTC", every_ms=250))
        assert (await listen(ws, "snapshot"))["offset"] == 1
        for seq in range(2, 6):
            gateway.price("BTC-USD", str(100 + seq), seq=seq)
        gateway.hub.tick(100)
        gateway.hub.tick(1_000)
        update = await listen(ws, "update")
        assert (update["offset"], update["skipped"], update["data"]["p"]) == (5, 3, "105")


async def test_a_late_joiner_counts_from_his_own_snapshot(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws() as early, gateway.ws() as late:
        await say(early, op="subscribe", channels=ticker("BTC", every_ms=1000))
        await listen(early, "snapshot")
        for seq in (2, 3):
            gateway.price("BTC-USD", str(seq), seq=seq)
        await say(late, op="subscribe", channels=ticker("BTC", every_ms=1000))
        assert (await listen(late, "snapshot"))["offset"] == 3
        gateway.hub.tick(1_000)
        gateway.price("BTC-USD", "4", seq=4)
        gateway.hub.tick(1_000)
        assert [(await listen(early, "update"))["offset"] for _ in range(2)] == [3, 4]
        only = await listen(late, "update")
        assert (only["offset"], only.get("skipped", 0)) == (4, 0)


async def test_newest_trades_over_http_for_callers_with_a_credential(gateway: Any) -> None:
    assert (await gateway.http.get("/v1/trades/BTC-USDT")).status_code == 401

    async def come() -> None:
        await asyncio.sleep(0.2)
        gateway.distributor.ticks(a_batch(1, 3))

    coming = asyncio.create_task(come())
    answer = await gateway.http.get("/v1/trades/BTC-USDT?limit=2", headers=gateway.token())
    await coming
    assert [row["id"] for row in answer.json()["data"]] == [3, 2]
    assert gateway.ticks.followed == {"BTC-USDT"}


async def test_a_new_epoch_begins_anew(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=900)
    async with gateway.ws() as ws:
        where = {"BTC-USD": {"epoch": "0", "offset": 5}}
        await say(ws, op="subscribe", channels=ticker("BTC", resume=where))
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is False
        assert (await listen(ws, "snapshot"))["epoch"] == "1"
        gateway.price("BTC-USD", "2", seq=1, epoch=2)
        fresh = await listen(ws)
        assert (fresh["type"], fresh["epoch"], fresh["offset"]) == ("snapshot", "2", 1)
        gateway.price("BTC-USD", "3", seq=2, epoch=2)
        assert (await listen(ws, "update"))["offset"] == 2


async def test_a_blocked_client_gets_the_newest_and_how_much_it_missed(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=ticker("BTC"))
        await listen(ws, "snapshot")
        (connection,) = gateway.hub.connections.values()
        connection.pause(0.0)
        for seq in range(2, 8):
            gateway.price("BTC-USD", str(seq), seq=seq)
        connection.resume()
        update = await listen(ws)
        assert (update["offset"], update["skipped"]) == (7, 5)
        connection.pause(0.0)
        gateway.price("BTC-USD", "9", seq=1, epoch=2)
        connection.resume()
        assert (await listen(ws))["type"] == "snapshot"


async def test_a_client_blocked_for_ten_seconds_is_closed(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        await listen(ws, "welcome")
        (connection,) = gateway.hub.connections.values()
        connection.pause(gateway.clock.monotonic())
        gateway.clock.advance(9)
        gateway.hub.sweep()
        assert not connection.closed
        gateway.clock.advance(1.5)
        gateway.hub.sweep()
        assert await closed(ws) == 4008


async def test_candles_come_forming_and_closed(gateway: Any, listen: Any) -> None:
    forming = a_candle(symbol="BTC-USD", source="consolidated", interval="1h", closed=False)
    gateway.prices.bars.append(forming)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{"ch": "candles:1h", "symbols": ["BTC"]}])
        assert (await listen(ws, "snapshot"))["data"]["closed"] is False
        bar = a_candle(symbol="BTC-USD", source="consolidated", interval="1h", closed=True)
        gateway.distributor.candles(CandleBatch(shard=0, epoch=1, interval="1h", candles=[bar]))
        update = await listen(ws, "update")
        assert (update["data"]["closed"], update["data"]["i"]) == (True, "1h")


async def test_a_crowd_that_comes_at_once_asks_the_store_once(gateway: Any, listen: Any) -> None:
    gateway.prices.positions["candles", "BTC-USD", "consolidated", "1h"] = (7, 3)
    gateway.prices.takes_seconds = 0.05
    async with contextlib.AsyncExitStack() as crowd:
        sockets = [await crowd.enter_async_context(gateway.ws()) for _ in range(5)]
        for ws in sockets:
            await say(ws, op="subscribe", channels=[{"ch": "candles:1h", "symbols": ["BTC"]}])
        for ws in sockets:
            entry = (await listen(ws, "ack"))["subscribed"][0]
            assert (entry["epoch"], entry["offset"]) == ("7", 3)
    assert gateway.prices.asked == 1


async def test_what_is_away_is_worth_another_try_after_a_while(gateway: Any, listen: Any) -> None:
    gateway.prices.away = True
    wish = {"op": "subscribe", "channels": [{"ch": "candles:1h", "symbols": ["BTC"]}]}
    async with gateway.ws() as ws:
        await say(ws, **wish)
        refused = (await listen(ws, "ack"))["rejected"][0]
        assert (refused["code"], refused["retry_after_ms"]) == ("unavailable", 2_000)
        gateway.prices.away = False
        await say(ws, **wish)
        assert (await listen(ws, "ack"))["ok"] is True


async def test_seconds_come_closed_and_corrected_and_never_forming(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{"ch": "candles:1s", "symbols": ["BTC"]}])
        assert (await listen(ws, "ack"))["subscribed"][0]["ch"] == "candles:1s"
        bars = [
            a_candle("BTC-USD", interval="1s", open_time=at, revision=revision)
            for at, revision in ((1_000, 0), (2_000, 0), (1_000, 1))
        ]
        gateway.distributor.candles(
            CandleBatch(shard=0, epoch=1, interval="1s", candles=bars, offsets=[1, 2, 3])
        )
        told = [await listen(ws) for _ in bars]
        assert [(row["data"]["t"], row["data"]["rev"], row["data"]["closed"]) for row in told] == [
            (1_000, 0, True), (2_000, 0, True), (1_000, 1, True),
        ]  # fmt: skip
        await say(ws, op="subscribe", channels=[{"ch": "indicators:1s", "symbols": ["BTC"]}])
        assert (await listen(ws, "ack"))["rejected"][0]["code"] == "unknown_interval"


def an_alert(user: str, number: int = 1) -> AlertEvent:
    return AlertEvent(
        id=f"ae_{number}", type="alert.triggered", user_id=user, rule_id="al_1", dedupe_key=f"k{number}", at_ms=1_700_000_000_000,
        symbol="BTC-USD", source="consolidated", condition="price_above", message="up", price=Decimal(70000),
    )  # fmt: skip


async def test_alerts_reach_their_owner_and_nobody_else(gateway: Any, listen: Any) -> None:
    async with (
        gateway.ws(additional_headers=gateway.token("ada")) as ada,
        gateway.ws(additional_headers=gateway.token("bob")) as bob,
        gateway.ws("/ws/crypto/", additional_headers=gateway.token("ada")) as seed,
    ):
        for ws in (ada, bob):
            await say(ws, op="subscribe", channels=[{"ch": "alerts"}])
            await listen(ws, "ack")
        await listen(seed, "price_update")
        gateway.distributor.alert(an_alert("ada"))
        for ws in (ada, seed):
            event = await listen(ws, "alert")
            assert (event["event_id"], event["event"]["price"], event["replayed"]) == ("ae_1", "70000", False)
            assert "user_id" not in event["event"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bob.recv(), 0.2)


async def test_missed_alerts_are_replayed_from_the_store_once(gateway: Any, listen: Any) -> None:
    rows = [{"id": f"ae_{n}", "dedupe_key": f"k{n}", "at": "2026-01-01T00:00:00Z"} for n in (1, 2)]
    gateway.services.says("alerts", "GET", "/alert-events", {"data": rows, "next_cursor": None})
    where = {"alerts": {"epoch": "events", "offset": gateway.clock.now_ms() - 60_000}}
    async with gateway.ws(additional_headers=gateway.token("ada")) as ws:
        await say(ws, op="subscribe", channels=[{"ch": "alerts", "resume": where}])
        got = [await listen(ws, "alert") for _ in range(2)]
        assert [(event["event_id"], event["replayed"]) for event in got] == [("ae_1", True), ("ae_2", True)]
        assert (await listen(ws, "resumed"))["recovered"] is True


async def test_a_portfolio_is_shown_to_its_owner_only(gateway: Any, listen: Any) -> None:
    gateway.services.says("portfolio", "GET", "/portfolios/5", {"id": 5})
    gateway.services.says("portfolio", "PUT", "/watch", {"watched": 1})
    async with gateway.ws(additional_headers=gateway.token("ada")) as ws:
        await say(ws, op="subscribe", channels=[{"ch": "portfolio:5", "every_ms": 0}, {"ch": "portfolio:6"}])
        ack = await listen(ws, "ack")
        assert ack["subscribed"][0]["ch"] == "portfolio:5"
        assert ack["rejected"][0]["code"] in {"not_found", "unavailable"}
        value = PortfolioValued(
            user_id="ada", portfolio_id=5, version=1, snapshot_id="s", at_ms=1, base_currency="USD", value=Decimal("10.50"),
            cost=Decimal(10), unrealised_pnl=Decimal("0.5"), unrealised_pnl_pct=Decimal(5), complete=True, seq=1, epoch=1,
        )  # fmt: skip
        gateway.distributor.valued_all(PortfolioValueBatch(part=1, sent_us=1, values=[value]))
        assert (await listen(ws, "snapshot"))["data"]["value"] == "10.5"


async def test_bad_frames_are_answered_and_the_socket_stays_open(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        await listen(ws, "welcome")
        for frame in ("", "nonsense", "[]", '{"op":"fly","id":9}', '{"op":"subscribe"}', "[" * 9_000):
            await ws.send(frame)
            assert (await listen(ws))["code"] == "bad_command"
        await ws.send('{"op":"ping","x":"' + "y" * 17_000 + '"}')
        assert (await listen(ws))["code"] == "frame_too_large"
        await say(ws, op="ping", id=3, ts=42)
        assert (await listen(ws, "pong"))["ts"] == 42


async def test_too_many_messages_are_slowed_then_closed(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        for number in range(160):
            await say(ws, op="ping", id=number)
        assert (await listen(ws, "error"))["code"] == "rate_limited"
        assert await closed(ws) == 4013


async def test_credentials_by_header_subprotocol_and_message(gateway: Any, listen: Any) -> None:
    token = gateway.token("ada")["Authorization"].partition(" ")[2]
    encoded = urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    async with gateway.ws(subprotocols=["cryptopulse.v1", f"bearer.{encoded}"]) as ws:
        assert ws.subprotocol == "cryptopulse.v1"
        assert (await listen(ws))["authenticated"] is True
    async with gateway.ws() as ws:
        assert (await listen(ws))["authenticated"] is False
        await say(ws, op="auth", id=1, token=token)
        assert (await listen(ws, "ack"))["authenticated"] is True
        other = gateway.token("bob")["Authorization"].partition(" ")[2]
        await say(ws, op="auth", id=2, token=other)
        assert (await listen(ws, "error"))["code"] == "invalid_token"
        assert await closed(ws) == 4500


async def test_credentials_in_the_address_are_refused(gateway: Any) -> None:
    async with gateway.ws("/v1/ws?token=abc") as ws:
        assert await closed(ws) == 4001


async def test_a_bad_token_is_told_not_to_come_back(gateway: Any) -> None:
    async with gateway.ws(additional_headers={"Authorization": "Bearer nonsense"}) as ws:
        assert await closed(ws) == 4500


async def test_foreign_origins_may_not_connect(gateway: Any) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with gateway.ws(origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403
    async with gateway.ws(origin="https://app.example.org") as ws:
        await ws.recv()


async def test_an_expiring_token_is_announced_then_ends_the_connection(gateway: Any, listen: Any) -> None:
    async with gateway.ws(additional_headers=gateway.token("ada", lifetime_seconds=600)) as ws:
        await listen(ws, "welcome")
        gateway.clock.advance(580)
        gateway.hub.sweep()
        assert 0 < (await listen(ws, "auth_expiring"))["in_ms"] <= 60_000
        gateway.clock.advance(120)
        gateway.hub.sweep()
        assert await closed(ws) == 4001


async def test_a_revoked_session_loses_its_sockets(gateway: Any, listen: Any) -> None:
    async with gateway.ws(additional_headers=gateway.token("ada", session_id="s-1")) as ws:
        await listen(ws, "welcome")
        await gateway.revocations.revoke(["s-1"])
        assert await closed(ws) == 4001


async def test_silence_is_told_and_so_is_its_end(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=ticker("BTC"))
        sid = (await listen(ws, "snapshot"))["sid"]
        gateway.clock.advance(40)
        gateway.distributor.check_ages()
        gateway.distributor.check_ages()
        stale = await listen(ws, "stale")
        assert (stale["sid"], stale["reason"]) == (sid, "provider_disconnected")
        gateway.price("BTC-USD", "2", seq=2)
        assert (await listen(ws))["type"] == "fresh"
        assert (await listen(ws))["data"]["p"] == "2"


async def test_heartbeats_tell_ages_and_the_end_is_announced(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=ticker("BTC"))
        sid = (await listen(ws, "snapshot"))["sid"]
        gateway.hub.heartbeat()
        assert str(sid) in (await listen(ws, "hb"))["age_ms"]
        gateway.hub.farewell()
        assert 0 <= (await listen(ws, "going_away"))["reconnect_after_ms"] <= 10_000
        gateway.hub.close_all()
        assert await closed(ws) == 1012


async def test_unsubscribe_and_list(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=ticker("BTC", "ETH"))
        await listen(ws, "ack")
        await say(ws, op="unsubscribe", id=2, channels=[{"ch": "ticker", "symbols": ["BTC"]}])
        assert [row["symbol"] for row in (await listen(ws, "ack"))["unsubscribed"]] == ["BTC-USD"]
        await say(ws, op="list", id=3)
        assert [row["symbol"] for row in (await listen(ws, "ack"))["subscriptions"]] == ["ETH-USD"]


async def test_one_who_never_reads_is_closed_and_the_others_go_on(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=1)
    async with gateway.ws(max_queue=1) as slow, gateway.ws() as quick:
        for ws in (slow, quick):
            await say(ws, op="subscribe", channels=[{"ch": "trades", "symbols": ["BTC-USDT"]}])
        await listen(quick, "ack")
        slow.transport.pause_reading()
        seen = asyncio.create_task(_count(quick))
        number = 0
        while gateway.hub.connections and len(gateway.hub.connections) > 1 and number < 200_000:
            trades = [a_trade(symbol="BTC-USDT", trade_id=number + n) for n in range(1, 201)]
            number += 200
            gateway.distributor.ticks(
                TickBatch(venue="binance", shard=0, epoch=1, seq=number, sent_us=0, trades=trades)
            )
            await asyncio.sleep(0)
            if any(item.closed for item in gateway.hub.connections.values()):
                break
        blocked = [item for item in gateway.hub.connections.values() if item.closed]
        assert len(blocked) == 1 or len(gateway.hub.connections) == 1
        await asyncio.sleep(0.3)
        seen.cancel()
        assert number > 0
        slow.transport.resume_reading()
        assert await closed(slow) == 4008


async def _count(ws: Any) -> None:
    while True:
        await ws.recv()
