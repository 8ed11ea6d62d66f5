"""Binance as a client sees it: handshake forms, control messages, streams, REST, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tools.venue_sim.testing import Simulation, running_simulator, tapped
from tools.venue_sim.venues.binance.site import BinanceOptions


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(
        rate=400.0, coinbase_port=None, kraken_port=None, coingecko_port=None
    ) as running:
        yield running


async def rest(sim: Simulation, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(sim.urls.binance_api + path, headers=headers)


def holds(wanted: dict[str, Any], said: Any) -> bool:
    return isinstance(said, dict) and wanted.items() <= said.items()


def is_trade(message: Any) -> bool:
    return isinstance(message, dict) and message.get("e") == "trade"


async def test_raw_combined_and_later_subscription_bring_the_same_stream(sim: Simulation) -> None:
    combined = sim.urls.binance_ws + "/stream?streams=btcusdt@trade/ethusdt@bookTicker"
    async with (
        tapped(combined) as one,
        tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as two,
        tapped(sim.urls.binance_ws + "/ws") as three,
    ):
        await three.say({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1})
        assert await three.until(lambda message: "result" in message) == {"result": None, "id": 1}
        last = await three.until(is_trade)
        same = await one.until(lambda message: message["data"].get("t") == last["t"])
        await two.until(lambda message: message == last)
        await one.until(lambda message: message["stream"] == "ethusdt@bookTicker")

    assert same == {"stream": "btcusdt@trade", "data": last}


async def test_trades_are_gapless_now_and_in_order(sim: Simulation) -> None:
    async with tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as tap:
        first = await tap.until(is_trade)
        await tap.until(lambda message: message["t"] >= first["t"] + 20)
        now = (await rest(sim, "/time")).json()["serverTime"]

    ids = [message["t"] for message in tap.messages]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(0 <= message["E"] - message["T"] < 200 for message in tap.messages)
    assert abs(tap.messages[-1]["E"] - now) < 1000


async def test_control_messages_and_their_errors(sim: Simulation) -> None:
    asked: list[tuple[Any, Any]] = [
        (
            {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade", "nosuch@trade"], "id": 1},
            {"result": None, "id": 1},
        ),
        (
            {"method": "LIST_SUBSCRIPTIONS", "id": "abc"},
            {"result": ["btcusdt@aggTrade", "nosuch@trade"], "id": "abc"},
        ),
        ({"method": "GET_PROPERTY", "params": ["combined"], "id": 2}, {"result": False, "id": 2}),
        ({"method": "SET_PROPERTY", "params": ["combined", True], "id": 5}, {"result": None, "id": 5}),
        ({"method": "GET_PROPERTY", "params": ["combined"], "id": 6}, {"result": True, "id": 6}),
        ({"method": "UNSUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": -7}, {"result": None, "id": -7}),
        ({"method": "GET_PROPERTY", "params": ["colour"], "id": 8}, 0),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 9}, 1),
        ({"method": "DANCE", "id": 10}, 2),
        ({"params": [], "id": 11}, 2),
        ({"method": "LIST_SUBSCRIPTIONS", "id": [1]}, 2),
        ("not json", 3),
    ]
    async with tapped(sim.urls.binance_ws + "/ws") as tap:
        for number, (message, answer) in enumerate(asked):
            if number % 4 == 3:
                await asyncio.sleep(1.05)
            before = len(tap.messages)
            await tap.say(message)
            expected = answer if isinstance(answer, dict) else {"code": answer}
            found = await tap.until(partial(holds, expected), after=before)
            assert "msg" in found or found == expected


async def test_more_than_five_messages_a_second_end_the_connection(sim: Simulation) -> None:
    async with tapped(sim.urls.binance_ws + "/ws") as tap:
        for number in range(7):
            await tap.say({"method": "LIST_SUBSCRIPTIONS", "id": number})
        assert await tap.gone() == 1008


async def test_more_than_1024_streams_are_refused(sim: Simulation) -> None:
    many = [f"s{number}@trade" for number in range(1025)]
    async with tapped(sim.urls.binance_ws + "/ws", {"method": "SUBSCRIBE", "params": many, "id": 1}) as tap:
        assert (await tap.until(lambda message: "code" in message))["code"] == 2
    with pytest.raises(InvalidStatus):
        async with tapped(sim.urls.binance_ws + "/stream?streams=" + "/".join(many)):
            pass


async def test_microseconds_when_asked(sim: Simulation) -> None:
    async with tapped(sim.urls.binance_ws + "/ws/btcusdt@trade?timeUnit=MICROSECOND") as tap:
        message = await tap.until(is_trade)
    assert message["T"] > 10**15
    rows = (await rest(sim, "/trades?symbol=BTCUSDT&limit=1", **{"X-MBX-TIME-UNIT": "MICROSECOND"})).json()
    assert rows[0]["time"] > 10**15


async def test_tickers_and_klines_arrive(sim: Simulation) -> None:
    names = [
        "btcusdt@miniTicker",
        "btcusdt@ticker",
        "!miniTicker@arr",
        "btcusdt@kline_1m",
        "btcusdt@kline_1h",
    ]
    async with tapped(sim.urls.binance_ws + "/ws/" + "/".join(names)) as tap:
        await tap.until(lambda message: isinstance(message, dict) and message["e"] == "24hrMiniTicker")
        await tap.until(lambda message: isinstance(message, dict) and message["e"] == "24hrTicker")
        several = await tap.until(lambda message: isinstance(message, list))
        kline = await tap.until(lambda message: isinstance(message, dict) and message["e"] == "kline")

    assert {row["s"] for row in several} >= {"BTCUSDT", "ETHUSDT"}
    assert kline["k"]["x"] is False
    assert kline["k"]["n"] == kline["k"]["L"] - kline["k"]["f"] + 1


async def test_pings_come_and_a_client_that_answers_stays() -> None:
    options = BinanceOptions(ping_seconds=0.3, pong_timeout_seconds=0.5)
    async with (
        running_simulator(rate=50.0, coins=8, binance=options, coinbase_port=None) as sim,
        tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as tap,
    ):
        await asyncio.sleep(2.0)
        assert not tap.closed


async def send_empty_pongs(writer: asyncio.StreamWriter) -> None:
    """Pongs that nobody asked for: allowed, and they keep nothing alive."""
    while True:
        writer.write(b"\x8a\x80\x00\x00\x00\x00")
        await asyncio.sleep(0.3)


async def test_a_client_that_does_not_echo_pings_is_dropped() -> None:
    options = BinanceOptions(ping_seconds=0.3, pong_timeout_seconds=0.5)
    async with running_simulator(rate=50.0, coins=8, binance=options, coinbase_port=None) as sim:
        port = int(sim.urls.binance_ws.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        unasked = asyncio.create_task(send_empty_pongs(writer))
        async with asyncio.timeout(5):
            said = await reader.read(-1)
        unasked.cancel()
        writer.close()

    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in said  # the key of RFC 6455, answered as it says
    assert b"Pong timeout" in said


async def test_connections_live_only_so_long() -> None:
    async with (
        running_simulator(rate=50.0, coins=8, binance=BinanceOptions(lifetime_seconds=0.5)) as sim,
        tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as tap,
    ):
        assert await tap.gone() == 1001


async def test_exchange_info_tells_limits_steps_and_status(sim: Simulation) -> None:
    info = (await rest(sim, "/exchangeInfo")).json()
    kinds = {limit["rateLimitType"]: limit["limit"] for limit in info["rateLimits"]}
    btc = next(symbol for symbol in info["symbols"] if symbol["symbol"] == "BTCUSDT")

    assert kinds["REQUEST_WEIGHT"] == 6000
    assert (btc["baseAsset"], btc["quoteAsset"], btc["status"]) == ("BTC", "USDT", "TRADING")
    steps = {entry["filterType"]: entry for entry in btc["filters"]}
    assert steps["PRICE_FILTER"]["tickSize"] == "0.01000000"
    assert steps["LOT_SIZE"]["stepSize"] == "0.00001000"


async def test_klines_of_the_past_are_the_same_in_every_call_and_fold(sim: Simulation) -> None:
    window = "startTime=1795046400000&endTime=1795049999999&symbol=ETHUSDT"
    once = (await rest(sim, f"/klines?interval=1m&{window}")).json()
    again = (await rest(sim, f"/klines?interval=1m&{window}")).json()
    hour = (await rest(sim, f"/klines?interval=1h&{window}")).json()

    assert once == again
    assert len(once) == 60
    assert hour[0][1] == once[0][1]
    assert hour[0][4] == once[-1][4]
    assert Decimal(hour[0][2]) == max(Decimal(row[2]) for row in once)
    assert Decimal(hour[0][3]) == min(Decimal(row[3]) for row in once)
    for column in (5, 7, 8, 9, 10):
        assert Decimal(hour[0][column]) == sum(Decimal(row[column]) for row in once)


async def test_historical_trades_add_up_to_their_kline(sim: Simulation) -> None:
    row = (await rest(sim, "/klines?symbol=BTCUSDT&interval=1m&startTime=1795046400000&limit=1")).json()[0]
    found = (
        await rest(sim, "/aggTrades?symbol=BTCUSDT&startTime=1795046400000&endTime=1795046459999")
    ).json()
    same = (
        await rest(sim, f"/historicalTrades?symbol=BTCUSDT&fromId={found[0]['a']}&limit={len(found)}")
    ).json()

    assert row[8] == len(found) == len(same)
    assert sum(Decimal(trade["q"]) for trade in found) == Decimal(row[5])
    assert sum(Decimal(trade["quoteQty"]) for trade in same) == Decimal(row[7])
    assert (found[0]["p"], found[-1]["p"]) == (row[1], row[4])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/klines?symbol=NOPE&interval=1m", -1121),
        ("/klines?symbol=BTCUSDT&interval=7m", -1120),
        ("/klines?interval=1m", -1102),
        ("/klines?symbol=BTC_USDT!&interval=1m", -1100),
        ("/trades?symbol=BTCUSDT&limit=many", -1100),
    ],
)
async def test_errors_have_the_venue_s_codes(sim: Simulation, path: str, code: int) -> None:
    answer = await rest(sim, path)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.json()["msg"]


async def test_every_other_endpoint_answers(sim: Simulation) -> None:
    assert (await rest(sim, "/ping")).json() == {}
    assert len((await rest(sim, "/ticker/24hr?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D")).json()) == 2
    assert "priceChange" not in (await rest(sim, "/ticker/24hr?symbol=BTCUSDT&type=MINI")).json()
    assert len((await rest(sim, "/ticker/price")).json()) > 50
    book = (await rest(sim, "/ticker/bookTicker?symbol=BTCUSDT")).json()
    assert Decimal(book["bidPrice"]) < Decimal(book["askPrice"])
    depth = (await rest(sim, "/depth?symbol=BTCUSDT&limit=5")).json()
    assert len(depth["bids"]) == len(depth["asks"]) == 5
    quiet = (await rest(sim, "/uiKlines?symbol=BTCUSDT&interval=1w&limit=3")).json()
    assert len(quiet) == 3
    assert (await rest(sim, "/nothing")).status_code == 404


async def test_weight_is_counted_refused_and_at_last_banned() -> None:
    options = BinanceOptions(weight_per_minute=50, ban_seconds=7)
    async with running_simulator(rate=10.0, coins=8, binance=options, coinbase_port=None) as sim:
        first = await rest(sim, "/time")
        assert first.headers["X-MBX-USED-WEIGHT-1M"] == "1"
        await rest(sim, "/trades?symbol=BTCUSDT")
        refused = await rest(sim, "/trades?symbol=BTCUSDT")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        banned = refused
        for _ in range(30):
            banned = await rest(sim, "/trades?symbol=BTCUSDT")
            if banned.status_code == 418:
                break
        assert banned.status_code == 418
        banned = await rest(sim, "/time")
        assert (banned.status_code, banned.json()["code"]) == (418, -1003)
        assert "IP banned until" in banned.json()["msg"]
        assert int(banned.headers["Retry-After"]) <= 7
