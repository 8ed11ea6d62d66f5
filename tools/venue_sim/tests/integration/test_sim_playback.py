"""Recordings as a source: every recorded trade once, as it was, under its own date; REST agrees."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tools.venue_sim.testing import Simulation, running_simulator, tapped

COINBASE_PRODUCTS = ["SKL-USD", "YFI-BTC", "DASH-BTC", "CRV-EUR", "SKL-GBP"]


@pytest.fixture
def recordings(shared_data: Path) -> Path:
    folder = shared_data / "recordings"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    return folder


async def ended(sim: Simulation, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not (await sim.control.index())["playback"]["ended"]:
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)


async def rest(url: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).json()


def recorded(file: Path, stream: str) -> list[Any]:
    with gzip.open(file, "rt") as lines:
        return [json.loads(line.partition(" ")[2])["data"] for line in lines if f'"{stream}"' in line]


async def test_every_binance_trade_arrives_once_as_recorded(recordings: Path) -> None:
    folder = recordings / "binance_spot_ws"
    async with running_simulator(play=(folder,), speed=0.0, play_wait_seconds=0.2) as sim:
        combined = sim.urls.binance_ws + "/stream?streams=btcusdt@trade/ethusdt@trade"
        async with tapped(combined) as tap, tapped(sim.urls.binance_ws + "/ws/btcusdt@bookTicker") as book:
            await ended(sim)
        trades = [message["data"] for message in tap.messages]
        klines = await rest(f"{sim.urls.binance_api}/klines?symbol=BTCUSDT&interval=1m&limit=1000")
        some = await rest(
            f"{sim.urls.binance_api}/historicalTrades?symbol=BTCUSDT&fromId=3735690000&limit=1000"
        )
        clock = (await rest(f"{sim.urls.binance_api}/time"))["serverTime"]

    assert len(trades) == 15_863
    for symbol, file in (("BTCUSDT", "btcusdt_20240808.gz"), ("ETHUSDT", "ethusdt_20240808.gz")):
        assert [trade for trade in trades if trade["s"] == symbol] == recorded(
            folder / file, f"{symbol.lower()}@trade"
        )
    assert len(book.messages) == 28_040
    assert [trade["id"] for trade in some] == list(range(3735690000, 3735691000))
    btc = [trade for trade in trades if trade["s"] == "BTCUSDT"]
    assert sum(Decimal(row[5]) for row in klines) == sum(Decimal(trade["q"]) for trade in btc)
    assert sum(row[8] for row in klines) == len(btc)
    assert abs(clock - btc[-1]["E"]) < 3_000


async def test_recorded_distances_are_kept_at_a_speed(recordings: Path) -> None:
    file = recordings / "coinbase_exchange_ws" / "products_a.txt.gz"
    wanted = {"type": "subscribe", "product_ids": COINBASE_PRODUCTS, "channels": ["matches"]}
    async with running_simulator(play=(file,), speed=10.0, play_wait_seconds=0.2) as sim:
        loop = asyncio.get_running_loop()
        async with tapped(sim.urls.coinbase_ws, wanted) as tap:
            started = loop.time()
            await ended(sim)
            took = loop.time() - started
        kinds = Counter(message["type"] for message in tap.messages)
        ids = [message["trade_id"] for message in tap.messages if message["type"] == "match"]
        page = await rest(f"{sim.urls.coinbase_exchange_api}/products/SKL-USD/trades?limit=1000")

    assert 2.5 < took < 8.0  # 30 recorded seconds at ten times the speed, and the waits of the test
    assert (kinds["match"], kinds["last_match"]) == (68, 5)
    assert (
        len(set(zip([m["product_id"] for m in tap.messages if m["type"] == "match"], ids, strict=True))) == 68
    )
    mine = [
        m["trade_id"]
        for m in tap.messages
        if m["type"] in {"match", "last_match"} and m["product_id"] == "SKL-USD"
    ]
    assert [row["trade_id"] for row in reversed(page)] == mine


async def test_advanced_trade_is_made_from_an_exchange_recording(recordings: Path) -> None:
    file = recordings / "coinbase_exchange_ws" / "products_a.txt.gz"
    wanted = {"type": "subscribe", "product_ids": COINBASE_PRODUCTS, "channel": "market_trades"}
    async with (
        running_simulator(play=(file,), speed=0.0, play_wait_seconds=0.2) as sim,
        tapped(sim.urls.coinbase_ws, wanted) as tap,
    ):
        await ended(sim)
    trades = [trade for m in tap.messages for event in m["events"] for trade in event.get("trades", [])]
    assert len(trades) == 73
    assert all(trade["time"].startswith("2021-04-17T16:4") for trade in trades)


async def test_cryptofeed_files_of_binance_and_kraken_play_together(recordings: Path) -> None:
    folder = recordings / "cryptofeed_v2"
    kraken = {"event": "subscribe", "pair": ["XMR/USD", "SC/EUR"], "subscription": {"name": "trade"}}
    async with running_simulator(play=(folder,), speed=0.0, play_wait_seconds=0.2) as sim:
        url = sim.urls.binance_ws + "/stream?streams=nknusdt@bookTicker/lrcbtc@aggTrade/nknusdt@kline_1m"
        async with tapped(url) as one, tapped(sim.urls.kraken_ws, kraken) as two:
            await ended(sim)
        symbols = (await rest(f"{sim.urls.binance_api}/exchangeInfo"))["symbols"]

    assert {(symbol["baseAsset"], symbol["quoteAsset"]) for symbol in symbols} == {
        ("NKN", "USDT"), ("BLZ", "ETH"), ("LRC", "BTC"), ("RUNE", "EUR"),
    }  # fmt: skip
    streams = Counter(message["stream"] for message in one.messages)
    assert streams["lrcbtc@aggTrade"] == 1
    assert streams["nknusdt@bookTicker"] > 0
    assert streams["nknusdt@kline_1m"] == 1
    rows = [row for message in two.messages if isinstance(message, list) for row in message[1]]
    with gzip.open(folder / "KRAKEN.ws.48.0.gz", "rt") as lines:
        recorded_rows = [
            row for line in lines if ": [" in line for row in json.loads(line.partition(" ")[2])[1]
        ]
    assert sorted(rows) == sorted(recorded_rows)


async def test_faults_work_on_recordings_too(recordings: Path) -> None:
    folder = recordings / "binance_spot_ws"
    async with running_simulator(play=(folder,), speed=0.0, play_wait_seconds=0.4) as sim:
        await sim.control.fault("drop", venue="binance", symbol="BTC-USDT", channel="trade", probability=0.1)
        await sim.control.fault("duplicate", venue="binance", symbol="ETH-USDT", channel="trade", count=7)
        async with tapped(sim.urls.binance_ws + "/ws/btcusdt@trade/ethusdt@trade") as tap:
            await ended(sim)
    counts = Counter(message["s"] for message in tap.messages)
    assert 9757 * 0.85 < counts["BTCUSDT"] < 9757 * 0.95
    assert counts["ETHUSDT"] == 6106 + 7


async def test_nothing_is_played_before_somebody_listens(recordings: Path) -> None:
    folder = recordings / "coinbase_exchange_ws"
    async with running_simulator(play=(folder,), speed=0.0, play_wait_seconds=0.1) as sim:
        await asyncio.sleep(0.4)
        state = (await sim.control.index())["playback"]
        assert (state["started"], state["played"]) == (False, 0)
        with pytest.raises(RuntimeError, match="recording"):
            await sim.control.rate(5)
