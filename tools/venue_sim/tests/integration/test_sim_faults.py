"""Every misbehaviour has its effect, and only that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tools.venue_sim.options import Options
from tools.venue_sim.testing import Simulation, WsTap, running_simulator, tapped
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions
from tools.venue_sim.venues.coingecko.site import CoinGeckoOptions

OPTIONS = Options(
    rate=1000.0,
    coins=8,
    coinbase=CoinbaseOptions(requests_per_second=1000.0, burst=1000),
    coingecko=CoinGeckoOptions(per_minute=1000, cache_seconds=0.1),
)


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(OPTIONS) as running:
        yield running


def binance(sim: Simulation, *streams: str) -> Any:
    return tapped(sim.urls.binance_ws + "/ws/" + "/".join(streams or ("btcusdt@trade",)))


def advanced(sim: Simulation, *products: str) -> Any:
    message = {"type": "subscribe", "product_ids": list(products or ("BTC-USD",)), "channel": "market_trades"}
    return tapped(sim.urls.coinbase_ws, message, {"type": "subscribe", "channel": "heartbeats"})


async def get(url: str, seconds: float = 5.0) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=seconds) as client:
        return await client.get(url)


def ids_of(tap: WsTap) -> list[int]:
    return [
        message["t"] for message in tap.messages if isinstance(message, dict) and message.get("e") == "trade"
    ]


async def more(tap: WsTap, count: int) -> None:
    """Wait for some more messages."""
    wanted = len(tap.messages) + count
    async with asyncio.timeout(5):
        while len(tap.messages) < wanted:
            await asyncio.sleep(0.01)


# -- connections


@pytest.mark.parametrize("code", [1001, 1008, 1012])
async def test_close_with_a_code(sim: Simulation, code: int) -> None:
    async with binance(sim) as tap:
        await more(tap, 1)
        await sim.control.fault("close", venue="binance", code=code)
        assert await tap.gone() == code


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_has_no_close_frame(sim: Simulation, reset: bool) -> None:
    async with advanced(sim) as tap:
        await more(tap, 2)
        await sim.control.fault("cut", venue="coinbase", reset=reset)
        assert await tap.gone() == 1006


async def test_half_open_goes_silent_and_stays_up(sim: Simulation) -> None:
    async with binance(sim) as tap:
        await more(tap, 1)
        await sim.control.fault("half_open", venue="binance")
        await asyncio.sleep(0.2)
        before = len(tap.messages)
        await asyncio.sleep(0.7)
        assert len(tap.messages) == before
        assert not tap.closed


async def test_only_some_connections(sim: Simulation) -> None:
    async with binance(sim) as one, binance(sim) as two:
        await more(one, 1)
        await more(two, 1)
        await sim.control.fault("cut", venue="binance", connections=1)
        await asyncio.sleep(0.3)
        assert one.closed != two.closed


async def test_server_shutdown_raw_and_combined(sim: Simulation) -> None:
    combined = sim.urls.binance_ws + "/stream?streams=btcusdt@trade"
    async with binance(sim) as raw, tapped(combined) as wrapped:
        await more(raw, 1)
        await sim.control.fault("server_shutdown")
        data = await raw.until(lambda message: message["e"] == "serverShutdown")
        said = await wrapped.until(lambda message: message["stream"] == "!serverShutdown")
    assert data["E"] > 0
    assert said["data"]["e"] == "serverShutdown"


async def test_new_connections_can_be_refused(sim: Simulation) -> None:
    await sim.control.fault("refuse", venue="binance", status=503, count=1)
    with pytest.raises(InvalidStatus):
        async with binance(sim):
            pass
    async with binance(sim) as tap:
        await more(tap, 1)


async def test_a_fault_can_wait_and_end_by_itself(sim: Simulation) -> None:
    async with binance(sim) as tap:
        await more(tap, 1)
        await sim.control.fault("close", venue="binance", after=0.5, code=1012)
        await asyncio.sleep(0.2)
        assert not tap.closed
        assert await tap.gone() == 1012
    number = await sim.control.fault("status", venue="binance", symbol="BTC-USDT", status="HALT", seconds=0.3)
    assert number in {fault["id"] for fault in await sim.control.faults()}
    await asyncio.sleep(0.6)
    assert not await sim.control.faults()


# -- streams


async def test_dropped_ids_are_still_served_by_rest(sim: Simulation) -> None:
    await sim.control.fault("drop", venue="binance", symbol="BTC-USDT", channel="trade", probability=0.3)
    async with binance(sim) as tap:
        await more(tap, 30)
    ids = ids_of(tap)
    missing = sorted(set(range(ids[0], ids[-1])) - set(ids))
    assert missing
    url = f"{sim.urls.binance_api}/historicalTrades?symbol=BTCUSDT&fromId={missing[0]}&limit=1"
    assert (await get(url)).json()[0]["id"] == missing[0]


async def test_duplicates_and_shuffles_lose_nothing(sim: Simulation) -> None:
    await sim.control.fault("duplicate", venue="binance", probability=0.3)
    await sim.control.fault("reorder", venue="binance", probability=0.5, window=5)
    async with binance(sim) as tap:
        await more(tap, 60)
        await sim.control.pause()
        await sim.control.clear()
        await asyncio.sleep(0.3)
    ids = ids_of(tap)
    assert len(set(ids)) < len(ids)
    assert ids != sorted(ids)
    assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))


async def test_one_silent_stream_among_others(sim: Simulation) -> None:
    async with binance(sim, "btcusdt@trade", "ethusdt@trade", "btcusdt@bookTicker") as tap:
        await more(tap, 5)
        await sim.control.fault("silent", venue="binance", symbol="BTC-USDT", channel="trade")
        await asyncio.sleep(0.2)
        before = len(tap.messages)
        await asyncio.sleep(1.0)
        later = tap.messages[before:]
    assert not [message for message in later if message.get("e") == "trade" and message["s"] == "BTCUSDT"]
    assert [message for message in later if message.get("e") == "trade" and message["s"] == "ETHUSDT"]
    assert [message for message in later if "u" in message]


async def test_delayed_trades_come_late(sim: Simulation) -> None:
    await sim.control.fault("delay", venue="binance", ms=400, count=1)
    async with binance(sim) as tap:
        late = await tap.until(lambda message: message["E"] - message["T"] >= 390)
    assert any(message["t"] > late["t"] for message in tap.messages[: tap.messages.index(late)])


async def test_sequence_holes_and_lost_heartbeats(sim: Simulation) -> None:
    async with advanced(sim) as tap:
        await sim.control.fault("sequence_hole", venue="coinbase", channel="heartbeats", count=1)
        await tap.until(lambda message: message["channel"] == "heartbeats")
        numbers = [message["sequence_num"] for message in tap.messages]
        trades = [
            int(t["trade_id"])
            for m in tap.messages
            for e in m["events"]
            for t in reversed(e.get("trades", []))
        ]
    assert len(set(range(numbers[-1] + 1)) - set(numbers)) == 1
    assert trades == list(range(trades[0], trades[0] + len(trades)))
    await sim.control.fault("heartbeat_loss", venue="coinbase")
    async with advanced(sim) as tap:
        await asyncio.sleep(1.5)
        assert not [message for message in tap.messages if message["channel"] == "heartbeats"]


async def test_ids_start_over(sim: Simulation) -> None:
    async with binance(sim) as tap:
        await more(tap, 3)
        await sim.control.fault("id_reset", venue="binance", symbol="BTC-USDT", first_id=1)
        message = await tap.until(lambda message: message["t"] < 1000)
    assert message["t"] >= 1
    assert (await get(f"{sim.urls.binance_api}/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1")).json()[0][
        "id"
    ] == 1


# -- contents


@pytest.mark.parametrize("content", ["html", "empty", "garbage", "binary", "invalid_utf8", "array", "null"])
async def test_strange_frames_between_good_ones(sim: Simulation, content: str) -> None:
    async with binance(sim) as tap:
        await more(tap, 2)
        await sim.control.fault("inject", venue="binance", content=content, count=2)
        await more(tap, 10)
    strange = [
        message for message in tap.messages if not (isinstance(message, dict) and message.get("e") == "trade")
    ]
    assert len(strange) == 2
    ids = ids_of(tap)
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_corrupted_trades_are_right_in_rest(sim: Simulation) -> None:
    await sim.control.fault(
        "corrupt", venue="binance", channel="trade", content="bad_number", value="NaN", count=1
    )
    async with binance(sim) as tap:
        bad = await tap.until(lambda message: message["p"] == "NaN")
    trade = (
        await get(f"{sim.urls.binance_api}/historicalTrades?symbol=BTCUSDT&fromId={bad['t']}&limit=1")
    ).json()[0]
    assert float(trade["price"]) > 1


@pytest.mark.parametrize(
    ("content", "params", "check"),
    [
        ("bad_number", {"field": "size", "value": "0"}, lambda trade: trade["size"] == "0"),
        ("wrong_time", {"shift": "future_day"}, lambda trade: trade["time"].startswith("2099")),
        ("missing_field", {"field": "price"}, lambda trade: "price" not in trade),
        ("unknown_symbol", {}, lambda trade: trade["product_id"] == "NOSUCHUSDT"),
    ],
)
async def test_corrupted_fields_inside_batches(
    sim: Simulation, content: str, params: Any, check: Any
) -> None:
    await sim.control.fault("corrupt", venue="coinbase", channel="market_trades", content=content, **params)
    async with advanced(sim) as tap:
        message = await tap.until(lambda message: message["channel"] == "market_trades")
    assert all(check(trade) for trade in message["events"][0]["trades"])


# -- REST


@pytest.mark.parametrize(("status", "retry_after"), [(429, 3), (429, None), (418, 120), (503, None)])
async def test_rest_refuses(sim: Simulation, status: int, retry_after: int | None) -> None:
    await sim.control.fault("rest_status", venue="binance", status=status, retry_after=retry_after, count=1)
    answer = await get(sim.urls.binance_api + "/time")
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert (await get(sim.urls.binance_api + "/time")).status_code == 200


@pytest.mark.parametrize("content", ["html", "empty", "truncated", "invalid_utf8", "array"])
async def test_rest_bodies_are_broken_with_status_200(sim: Simulation, content: str) -> None:
    good = (await get(sim.urls.coinbase_exchange_api + "/products/BTC-USD")).content
    await sim.control.fault("rest_body", venue="coinbase", content=content, count=1)
    answer = await get(sim.urls.coinbase_exchange_api + "/products/BTC-USD")
    assert answer.status_code == 200
    assert answer.content != good


async def test_rest_is_slow_cut_or_hangs_on_one_path(sim: Simulation) -> None:
    await sim.control.fault("rest_slow", venue="binance", ms=400, path="/klines")
    started = time.monotonic()
    await get(sim.urls.binance_api + "/klines?symbol=BTCUSDT&interval=1m&limit=1")
    slow = time.monotonic() - started
    started = time.monotonic()
    await get(sim.urls.binance_api + "/time")
    assert slow >= 0.4 > time.monotonic() - started
    await sim.control.fault("rest_cut", venue="coinbase", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await get(sim.urls.coinbase_api + "/market/products")
    await sim.control.fault("rest_hang", venue="coingecko", count=1)
    with pytest.raises(httpx.ReadTimeout):
        await get(sim.urls.coingecko_api + "/ping", 0.3)


# -- subscriptions and products


async def test_one_symbol_cannot_be_subscribed(sim: Simulation) -> None:
    await sim.control.fault("subscribe_error", venue="binance", symbol="ETH-USDT")
    wanted = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1}
    async with tapped(sim.urls.binance_ws + "/ws", wanted, {"method": "LIST_SUBSCRIPTIONS", "id": 2}) as tap:
        assert (await tap.until(lambda message: message.get("id") == 2))["result"] == ["btcusdt@trade"]
    await sim.control.fault("subscribe_error", venue="coinbase", symbol="ETH-USD")
    async with advanced(sim, "BTC-USD", "ETH-USD") as two:
        await two.until(lambda message: message.get("type") == "error")
        answer = await two.until(lambda message: message.get("channel") == "subscriptions")
        assert answer["events"][0]["subscriptions"]["market_trades"] == ["BTC-USD"]


async def test_halted_and_delisted(sim: Simulation) -> None:
    await sim.control.fault("status", venue="binance", symbol="BTC-USDT", status="HALT")
    await sim.control.fault("delist", venue="binance", symbol="ETH-USDT")
    await sim.control.fault("status", venue="coinbase", symbol="BTC-USD", status="DELISTED")
    symbols = (await get(sim.urls.binance_api + "/exchangeInfo")).json()["symbols"]
    statuses = {symbol["symbol"]: symbol["status"] for symbol in symbols}
    assert statuses["BTCUSDT"] == "HALT"
    assert "ETHUSDT" not in statuses
    product = (await get(sim.urls.coinbase_api + "/market/products/BTC-USD")).json()
    assert (product["status"], product["trading_disabled"]) == ("delisted", True)
    before = await sim.control.ledger("binance", "BTC-USDT")
    await asyncio.sleep(0.3)
    assert (await sim.control.ledger("binance", "BTC-USDT"))["count"] == before["count"]
    await sim.control.clear()
    assert (await get(sim.urls.binance_api + "/exchangeInfo?symbol=ETHUSDT")).status_code == 200


async def test_a_new_listing_has_a_first_trade_ever(sim: Simulation) -> None:
    await sim.control.list_new("coinbase", "X0042-USD")
    products = (await get(sim.urls.coinbase_exchange_api + "/products")).json()
    assert "X0042-USD" in {product["id"] for product in products}
    async with advanced(sim, "X0042-USD") as tap:
        await sim.control.trade("coinbase", "X0042-USD", "1.5", size="2")
        await asyncio.sleep(0.3)
    ids = [
        int(t["trade_id"]) for m in tap.messages for e in m["events"] for t in reversed(e.get("trades", []))
    ]
    assert ids[0] == 1
    with pytest.raises(RuntimeError, match="listed already"):
        await sim.control.list_new("coinbase", "X0042-USD")


async def test_a_trade_can_be_exactly_on_a_boundary_or_late(sim: Simulation) -> None:
    await sim.control.pause()
    minute = int(time.time()) // 60 * 60_000_000
    for at_us in (minute - 1, minute, minute - 5_000_000):
        await sim.control.trade("binance", "BTC-USDT", "70000", size="1", time_us=at_us)
    rows = (await sim.control.ledger("binance", "BTC-USDT"))["minutes"]
    assert rows[0]["open_time"] * 1000 == minute - 60_000_000
    assert rows[0]["trades"] == 2


async def test_an_open_kline_can_come_after_the_closed_one(sim: Simulation) -> None:
    async with binance(sim, "btcusdt@kline_1s") as tap:
        await tap.until(lambda message: message["k"]["x"])
        await sim.control.fault("delay", venue="binance", channel="kline", ms=2500, count=1)
        await asyncio.sleep(4.0)
    closed: set[int] = set()
    again = []
    for message in tap.messages:
        if message["k"]["x"]:
            closed.add(message["k"]["t"])
        elif message["k"]["t"] in closed:
            again.append(message)
    assert again


# -- the market


async def price(sim: Simulation, venue: str, symbol: str) -> float:
    await asyncio.sleep(0.35)
    return float((await sim.control.trades(venue, symbol, limit=1))[-1]["price"])


async def test_one_venue_off_and_frozen(sim: Simulation) -> None:
    before = await price(sim, "binance", "BTC-USDT")
    number = await sim.control.fault("offset", venue="binance", factor=1.2)
    assert await price(sim, "binance", "BTC-USDT") == pytest.approx(before * 1.2, rel=0.02)
    assert await price(sim, "coinbase", "BTC-USD") == pytest.approx(before, rel=0.02)
    await sim.control.fault("freeze", venue="binance", symbol="BTC-USDT")
    await sim.control.clear(number)
    assert await price(sim, "binance", "BTC-USDT") == pytest.approx(before * 1.2, rel=0.02)
    await sim.control.clear()
    assert await price(sim, "binance", "BTC-USDT") == pytest.approx(before, rel=0.02)


async def test_a_stablecoin_loses_its_peg_everywhere(sim: Simulation) -> None:
    before = await price(sim, "binance", "BTC-USDC")
    await sim.control.fault("depeg", asset="USDC", factor=0.87)
    assert await price(sim, "binance", "BTC-USDC") == pytest.approx(before / 0.87, rel=0.02)
    assert await price(sim, "coinbase", "USDC-USD") == pytest.approx(0.87, rel=0.01)
    await asyncio.sleep(0.2)
    coin = (await get(sim.urls.coingecko_api + "/simple/price?ids=usd-coin&vs_currencies=usd")).json()
    assert coin["usd-coin"]["usd"] == pytest.approx(0.87, rel=0.01)


async def test_burst_quiet_crossed_and_skew(sim: Simulation) -> None:
    before = (await sim.control.stats())["counters"]["trades"]
    await sim.control.fault("burst", factor=10, seconds=0.5)
    await asyncio.sleep(0.5)
    assert (await sim.control.stats())["counters"]["trades"] - before > 3000
    await sim.control.fault("crossed_book", venue="binance", symbol="BTC-USDT")
    async with binance(sim, "btcusdt@bookTicker") as tap:
        await tap.until(lambda message: float(message["b"]) > float(message["a"]))
    await sim.control.fault("clock_skew", venue="binance", ms=-2000)
    assert (
        abs((await get(sim.urls.binance_api + "/time")).json()["serverTime"] / 1000 - time.time() + 2) < 0.5
    )
    await sim.control.fault("quiet", venue="coinbase", symbol="BTC-USD")
    count = (await sim.control.ledger("coinbase", "BTC-USD"))["count"]
    await asyncio.sleep(0.3)
    assert (await sim.control.ledger("coinbase", "BTC-USD"))["count"] == count


# -- CoinGecko


async def test_coins_absent_empty_null_and_no_quota(sim: Simulation) -> None:
    url = sim.urls.coingecko_api + "/simple/price?ids=bitcoin,ethereum,solana,dogecoin&vs_currencies=usd"
    await sim.control.fault("coin_absent", ids=["bitcoin"])
    await sim.control.fault("coin_empty", ids=["ethereum"])
    await sim.control.fault("coin_null", ids=["solana"])
    found = (await get(url)).json()
    assert found == {"ethereum": {}, "solana": {"usd": None}, "dogecoin": found["dogecoin"]}
    await sim.control.clear()
    await sim.control.fault("coin_quota")
    assert (await get(url)).status_code == 429
    await sim.control.clear()
    await sim.control.fault("rest_body", venue="coingecko", content="html_1020", status=403)
    answer = await get(url)
    assert (answer.status_code, "1020" in answer.text) == (403, True)


async def test_a_wrong_fault_is_refused_by_the_control_api(sim: Simulation) -> None:
    with pytest.raises(RuntimeError, match="unknown kind"):
        await sim.control.fault("explode")
    with pytest.raises(RuntimeError, match="does not list"):
        await sim.control.ledger("binance", "NO-PE")
    with contextlib.suppress(RuntimeError):
        await sim.control.script("binance", "BTC-USDT", [(0, -1)])
        pytest.fail("a price below zero was taken")
