"""Coinbase as a client sees it, in both dialects."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tools.venue_sim.testing import Simulation, running_simulator, tapped
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(
        rate=400.0, binance_port=None, kraken_port=None, coingecko_port=None
    ) as running:
        yield running


async def rest(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


def subscribe(channel: str, *products: str) -> dict[str, Any]:
    return {"type": "subscribe", "product_ids": list(products), "channel": channel}


def on(channel: str, kind: str = "update") -> Any:
    return lambda message: message.get("channel") == channel and message["events"][0].get("type") == kind


async def test_advanced_snapshot_updates_and_one_sequence(sim: Simulation) -> None:
    wanted = [
        subscribe("market_trades", "BTC-USD", "ETH-USD"),
        {"type": "subscribe", "channel": "heartbeats"},
    ]
    async with tapped(sim.urls.coinbase_ws, *wanted) as tap:
        snapshot = await tap.until(on("market_trades", "snapshot"))
        await tap.until(lambda message: message.get("channel") == "heartbeats")
        await tap.until(on("market_trades"))
        trades = [
            trade
            for message in tap.messages
            if message["channel"] == "market_trades"
            for event in message["events"]
            for trade in reversed(event["trades"])
            if trade["product_id"] == "BTC-USD"
        ]

    assert [message["sequence_num"] for message in tap.messages] == list(range(len(tap.messages)))
    inner = snapshot["events"][0]["trades"]
    assert len(inner) == 100
    assert int(inner[0]["trade_id"]) == int(inner[-1]["trade_id"]) + 99
    ids = [int(trade["trade_id"]) for trade in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", snapshot["timestamp"])
    beat = next(message for message in tap.messages if message["channel"] == "heartbeats")["events"][0]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0000 UTC m=\+\d+\.\d{9}", beat["current_time"]
    )


async def test_advanced_sides_are_the_maker_s(sim: Simulation) -> None:
    async with tapped(sim.urls.coinbase_ws, subscribe("market_trades", "BTC-USD")) as tap:
        update = await tap.until(on("market_trades"))
        trade = update["events"][0]["trades"][0]
        booked = await sim.control.trades("coinbase", "BTC-USD", from_id=trade["trade_id"], limit=1)

    assert (trade["side"], booked[0]["taker"]) in {("BUY", "sell"), ("SELL", "buy")}


async def test_advanced_usdc_twin_brings_the_usd_product(sim: Simulation) -> None:
    async with tapped(sim.urls.coinbase_ws, subscribe("market_trades", "BTC-USDC", "USDT-USDC")) as tap:
        answer = await tap.until(lambda message: message["channel"] == "subscriptions")
        update = await tap.until(on("market_trades"))
    assert answer["events"] == [{"subscriptions": {"market_trades": ["BTC-USD", "USDT-USDC"]}}]
    assert update["events"][0]["trades"][0]["product_id"] in {"BTC-USD", "USDT-USDC"}
    product = (await rest(sim.urls.coinbase_api + "/market/products/BTC-USDC")).json()
    assert (product["alias"], product["quote_currency_id"]) == ("BTC-USD", "USDC")


async def test_advanced_other_channels(sim: Simulation) -> None:
    wanted = [subscribe(channel, "BTC-USD") for channel in ("ticker", "ticker_batch", "candles", "level2")]
    async with tapped(sim.urls.coinbase_ws, *wanted) as tap:
        ticker = (await tap.until(on("ticker")))["events"][0]["tickers"][0]
        batch = (await tap.until(on("ticker_batch", "snapshot")))["events"][0]["tickers"][0]
        candles = (await tap.until(on("candles", "snapshot")))["events"][0]["candles"]
        book = (await tap.until(on("l2_data", "snapshot")))["events"][0]
        await tap.say({"type": "unsubscribe", "channel": "ticker", "product_ids": ["BTC-USD"]})
        await tap.until(
            lambda message: (
                message["channel"] == "subscriptions"
                and "ticker" not in message["events"][0]["subscriptions"]
            )
        )

    assert Decimal(ticker["best_bid"]) < Decimal(ticker["best_ask"])
    assert "best_bid" not in batch
    assert int(candles[0]["start"]) % 300 == 0
    assert int(candles[0]["start"]) > int(candles[-1]["start"])
    assert {update["side"] for update in book["updates"]} == {"bid", "offer"}


async def test_advanced_bad_requests_are_answered(sim: Simulation) -> None:
    async with tapped(
        sim.urls.coinbase_ws, subscribe("market_trades", "NO-PE", "BTC-USD"), subscribe("magic", "BTC-USD")
    ) as tap:
        await tap.until(lambda message: message.get("type") == "error" and "NO-PE" in message["message"])
        await tap.until(lambda message: message.get("type") == "error" and "magic" in message["message"])
        await tap.until(on("market_trades"))


async def test_who_does_not_subscribe_is_sent_away() -> None:
    options = CoinbaseOptions(subscribe_seconds=0.3)
    async with (
        running_simulator(coinbase=options, binance_port=None) as sim,
        tapped(sim.urls.coinbase_ws) as tap,
    ):
        assert await tap.gone() == 1008


async def test_exchange_matches_tickers_and_heartbeats(sim: Simulation) -> None:
    message = {
        "type": "subscribe",
        "product_ids": ["BTC-USD"],
        "channels": ["matches", "heartbeat", {"name": "ticker"}],
    }
    async with tapped(sim.urls.coinbase_ws, message) as tap:
        answer = await tap.until(lambda said: said["type"] == "subscriptions")
        last = await tap.until(lambda said: said["type"] == "last_match")
        ticker = await tap.until(
            lambda said: said["type"] == "ticker" and said["trade_id"] > last["trade_id"]
        )
        match = await tap.until(
            lambda said: said["type"] == "match" and said["trade_id"] == ticker["trade_id"]
        )
        beat = await tap.until(
            lambda said: said["type"] == "heartbeat" and said["last_trade_id"] >= match["trade_id"]
        )
        matches = [said["trade_id"] for said in tap.messages if said["type"] == "match"]

    assert [entry["name"] for entry in answer["channels"]] == ["matches", "heartbeat", "ticker"]
    assert matches == list(range(last["trade_id"] + 1, last["trade_id"] + 1 + len(matches)))
    assert ticker["side"] != match["side"]
    assert beat["sequence"] > match["sequence"]


async def test_exchange_refuses_the_whole_request_for_one_bad_product(sim: Simulation) -> None:
    message = {"type": "subscribe", "product_ids": ["BTC-USD", "NO-PE"], "channels": ["matches"]}
    async with tapped(sim.urls.coinbase_ws, message) as tap:
        error = await tap.until(lambda said: said["type"] == "error")
        assert "NO-PE" in error["reason"]
        assert not any(said["type"] == "match" for said in tap.messages)


async def test_exchange_trades_are_paged_by_cursor(sim: Simulation) -> None:
    base = sim.urls.coinbase_exchange_api + "/products/BTC-USD/trades"
    newest = await rest(base + "?limit=10")
    page = newest.json()
    older = await rest(base + f"?limit=5&after={page[-1]['trade_id']}")

    assert [row["trade_id"] for row in page] == list(range(page[0]["trade_id"], page[0]["trade_id"] - 10, -1))
    assert newest.headers["CB-AFTER"] == str(page[-1]["trade_id"])
    assert newest.headers["CB-BEFORE"] == str(page[0]["trade_id"])
    assert older.json()[0]["trade_id"] == page[-1]["trade_id"] - 1
    newer = (await rest(base + f"?before={page[4]['trade_id']}")).json()
    assert newer[-1]["trade_id"] == page[4]["trade_id"] + 1


async def test_candles_of_both_dialects_agree(sim: Simulation) -> None:
    end = int(time.time()) // 60 * 60 - 600
    start = end - 3600
    advanced = (await rest(sim.urls.coinbase_api + f"/market/products/BTC-USD/candles?granularity=ONE_MINUTE&start={start}&end={end}")).json()["candles"]  # fmt: skip
    exchange = (await rest(sim.urls.coinbase_exchange_api + f"/products/BTC-USD/candles?granularity=60&start={start}&end={end}")).json()  # fmt: skip

    assert len(advanced) == 61
    assert int(advanced[0]["start"]) > int(advanced[-1]["start"])
    as_exchange = [
        [int(row["start"]), *(float(row[key]) for key in ("low", "high", "open", "close", "volume"))]
        for row in advanced
    ]
    assert exchange == as_exchange


async def test_limits_on_rows_and_calls(sim: Simulation) -> None:
    refused = await rest(
        sim.urls.coinbase_api + "/market/products/BTC-USD/candles?granularity=ONE_MINUTE&start=0&end=60000"
    )
    assert refused.status_code == 400
    refused = await rest(
        sim.urls.coinbase_exchange_api
        + "/products/BTC-USD/candles?granularity=60&start=1700000000&end=1700030000"
    )
    assert (refused.status_code, "message" in refused.json()) == (400, True)
    async with httpx.AsyncClient(trust_env=False) as client:
        calls = [client.get(sim.urls.coinbase_exchange_api + "/time") for _ in range(40)]
        answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200, 429}


async def test_products_have_steps_status_and_twins(sim: Simulation) -> None:
    products = (await rest(sim.urls.coinbase_api + "/market/products")).json()["products"]
    names = {product["product_id"] for product in products}
    assert {"BTC-USD", "BTC-USDC", "ETH-USDT", "USDT-USD", "USDC-USD", "EUR-USD"} <= names
    assert len(names) == len(products)
    trades = (await rest(sim.urls.coinbase_api + "/market/products/BTC-USD/ticker?limit=3")).json()
    assert len(trades["trades"]) == 3
    assert isinstance(trades["trades"][0]["trade_id"], str)
    assert (await rest(sim.urls.coinbase_api + "/market/products/NO-PE")).status_code == 404
    assert (await rest(sim.urls.coinbase_exchange_api + "/products/BTC-USD")).json()["status"] == "online"
