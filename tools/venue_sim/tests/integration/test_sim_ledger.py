"""The ledger judges: what a client received, what REST serves and what klines say are one and the same."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx

from tools.venue_sim.testing import Simulation, running_simulator, tapped


async def rest(url: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def settled(sim: Simulation) -> None:
    """Stop the market and let what is on its way arrive."""
    await sim.control.pause()
    await asyncio.sleep(0.3)


async def test_received_trades_equal_the_ledger_on_every_venue() -> None:
    async with running_simulator(rate=1000.0, coins=8, coingecko_port=None) as sim:
        advanced = {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "market_trades"}
        kraken = {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}}
        async with (
            tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as one,
            tapped(sim.urls.coinbase_ws, advanced) as two,
            tapped(sim.urls.kraken_ws + "/v2", kraken) as three,
        ):
            await asyncio.sleep(2.0)
            await settled(sim)
            received = {
                ("binance", "BTC-USDT"): [(m["t"], m["q"]) for m in one.messages],
                ("coinbase", "BTC-USD"): [
                    (int(trade["trade_id"]), trade["size"])
                    for m in two.messages
                    for event in m["events"]
                    for trade in reversed(event.get("trades", []))
                ],
                ("kraken", "BTC-USD"): [
                    (row["trade_id"], str(Decimal(repr(row["qty"]))))
                    for m in three.messages
                    if m.get("channel") == "trade"
                    for row in m["data"]
                ],
            }
            for (venue, symbol), trades in received.items():
                ids = [made for made, _ in trades]
                ledger = await sim.control.ledger(venue, symbol, from_id=ids[0], to_id=ids[-1])
                assert ids == list(range(ids[0], ids[-1] + 1)), venue
                assert ledger["count"] == len(ids) > 5
                assert sum(Decimal(size) for _, size in trades) == Decimal(ledger["volume"])


async def test_a_minute_s_kline_is_its_trades_and_its_ledger_row() -> None:
    async with running_simulator(rate=1000.0, coins=8, coingecko_port=None, coinbase_port=None) as sim:
        await asyncio.sleep(0.7)
        await sim.control.fault("clock_skew", venue="binance", ms=60_000)
        await asyncio.sleep(0.7)
        await settled(sim)
        ledger = await sim.control.ledger("binance", "ETH-USDT")
        assert len(ledger["minutes"]) >= 2
        for minute in ledger["minutes"]:
            start = minute["open_time"]
            window = f"symbol=ETHUSDT&startTime={start}&endTime={start + 59_999}"
            kline = (await rest(f"{sim.urls.binance_api}/klines?interval=1m&{window}"))[0]
            trades = await rest(f"{sim.urls.binance_api}/aggTrades?limit=1000&{window}")
            assert kline[8] == minute["trades"] == len(trades)
            assert Decimal(kline[1]) == Decimal(minute["open"]) == Decimal(trades[0]["p"])
            assert Decimal(kline[4]) == Decimal(minute["close"]) == Decimal(trades[-1]["p"])
            assert (
                Decimal(kline[2]) == Decimal(minute["high"]) == max(Decimal(trade["p"]) for trade in trades)
            )
            assert Decimal(kline[3]) == Decimal(minute["low"]) == min(Decimal(trade["p"]) for trade in trades)
            assert (
                Decimal(kline[5]) == Decimal(minute["volume"]) == sum(Decimal(trade["q"]) for trade in trades)
            )
            assert Decimal(kline[9]) == sum(Decimal(trade["q"]) for trade in trades if not trade["m"])


async def test_a_closed_kline_comes_once_and_is_final() -> None:
    async with running_simulator(rate=500.0, coins=8, coinbase_port=None) as sim:
        async with tapped(sim.urls.binance_ws + "/ws/btcusdt@kline_1m") as tap:
            opened = await tap.until(lambda message: message["e"] == "kline")
            await sim.control.fault("clock_skew", venue="binance", ms=60_000)
            closed = await tap.until(lambda message: message["k"]["x"])
            await asyncio.sleep(0.5)
        start = opened["k"]["t"]
        kline = (
            await rest(f"{sim.urls.binance_api}/klines?symbol=BTCUSDT&interval=1m&startTime={start}&limit=1")
        )[0]

    assert closed["k"]["t"] == start
    assert (closed["k"]["o"], closed["k"]["c"], closed["k"]["v"], closed["k"]["n"]) == (
        kline[1],
        kline[4],
        kline[5],
        kline[8],
    )
    assert sum(message["k"]["x"] and message["k"]["t"] == start for message in tap.messages) == 1


async def test_history_and_live_prices_join() -> None:
    async with running_simulator(rate=500.0, coins=8, coinbase_port=None) as sim:
        await asyncio.sleep(1.0)
        rows = await rest(f"{sim.urls.binance_api}/klines?symbol=BTCUSDT&interval=1m&limit=60")
        newest = await rest(f"{sim.urls.binance_api}/trades?symbol=BTCUSDT&limit=500")

    closes = [float(row[4]) for row in rows]
    assert all(abs(after / before - 1) < 0.01 for before, after in pairwise(closes))
    prices = [float(trade["price"]) for trade in newest]
    assert max(abs(after / before - 1) for before, after in pairwise(prices)) < 0.01
    assert [trade["id"] for trade in newest] == list(range(newest[0]["id"], newest[0]["id"] + 500))


async def test_a_scripted_path_is_what_trades() -> None:
    async with running_simulator(rate=1000.0, coins=8, coinbase_port=None, kraken_port=None) as sim:
        async with tapped(sim.urls.binance_ws + "/ws/dogeusdt@trade") as tap:
            await sim.control.script("binance", "DOGE-USDT", [(0.0, 0.5), (1.0, 1.0)])
            high = await tap.until(lambda message: float(message["p"]) > 0.99, 10)
            await sim.control.unscript("binance", "DOGE-USDT")
            await tap.until(lambda message: float(message["p"]) < 0.4, after=tap.messages.index(high))
        on_the_way = [float(message["p"]) for message in tap.messages if 0.55 < float(message["p"]) < 0.95]
    assert len(on_the_way) > 3
    assert on_the_way[0] < on_the_way[-1] or len(set(on_the_way)) > 3


async def test_a_single_trade_on_command_is_sent_and_booked() -> None:
    async with running_simulator(rate=0.001) as sim:
        wanted = {"type": "subscribe", "product_ids": ["ETH-USD"], "channels": ["matches"]}
        async with tapped(sim.urls.coinbase_ws, wanted) as tap:
            await tap.until(lambda message: message["type"] == "last_match")
            made = await sim.control.trade("coinbase", "ETH-USD", "3333.33", size="1.5", side="sell")
            match = await tap.until(lambda message: message["type"] == "match")
        ledger = await sim.control.ledger("coinbase", "ETH-USD")

    assert (match["trade_id"], match["price"], match["size"], match["side"]) == (
        made["id"],
        "3333.33",
        "1.5",
        "buy",
    )
    assert (ledger["count"], ledger["volume"], ledger["last_id"]) == (1, "1.5", made["id"])


async def test_the_rate_follows_the_command() -> None:
    async with running_simulator(rate=100.0) as sim:
        await sim.control.rate(2000)
        before = (await sim.control.stats())["counters"]["trades"]
        await asyncio.sleep(1.5)
        made = (await sim.control.stats())["counters"]["trades"] - before
        assert 2000 < made < 4500
        await settled(sim)
        before = (await sim.control.stats())["counters"]["trades"]
        await asyncio.sleep(0.3)
        assert (await sim.control.stats())["counters"]["trades"] == before
