"""Ticks to prices, candles, indicators and answers, on real servers."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import msgspec

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.candles import Candle, CandleColumns
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.topics import CANDLES, INDICATORS, PRICES, Queue


async def until(check: Any, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    failure: Exception | None = None
    while time.monotonic() < deadline:
        try:
            found = await check()
            if found:
                return found
        except (AssertionError, KeyError, IndexError) as error:
            failure = error
        await asyncio.sleep(0.1)
    raise TimeoutError(f"not within {seconds} s: {failure}")


async def test_refusals_come_first(replica: Any, api: Any) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=replica.url) as bare:
        assert (await bare.get("/prices/BTC")).status_code == 401
    assert await api.status("/prices/NOSUCHCOIN") == 404
    assert await api.status("/candles/NOSUCHCOIN") == 404


async def test_a_tick_becomes_a_price_a_candle_and_indicators(
    api: Any, feed: Any, bus: Any, redis: Any
) -> None:
    got: dict[str, list[Any]] = {"prices": [], "candles": [], "values": []}

    def keep(name: str) -> Any:
        async def handle(delivery: Delivery) -> None:
            got[name].append(delivery.message)

        return handle

    await bus.subscribe(
        Queue(consumer="t", topic=PRICES, bindings=("price.BTC-USD",), exclusive=True), keep("prices")
    )
    await bus.subscribe(
        Queue(consumer="t", topic=CANDLES, bindings=("candle.1m.BTC-USDT",), exclusive=True), keep("candles")
    )
    await bus.subscribe(
        Queue(consumer="t", topic=INDICATORS, bindings=("indicator.1m.BTC-USDT",), exclusive=True),
        keep("values"),
    )
    await feed.catalogue()
    await asyncio.sleep(0.5)
    await feed.send(feed.trade("USDT-USD", 0, "0.999", venue="coinbase"), venue="coinbase", simulated=True)
    await asyncio.sleep(0.5)
    for minute in range(4):
        await feed.send(
            *[
                feed.trade("BTC-USDT", minute * 60_000 + k * 100, f"{60000 + minute * 10 + k}", "0.25")
                for k in range(20)
            ],
            simulated=True,
        )

    async def priced() -> Any:
        body = await api.get("/prices/BTC")
        assert Decimal(body["price"]) == Decimal(60049) * Decimal("0.999")
        return body

    body = await until(priced)
    assert body["symbol"] == "BTC-USD"
    assert body["source"] == "consolidated"
    assert body["status"] == "single"
    assert body["simulated"] is True
    assert body["stale"] is False
    assert body["sources_used"] == ["binance:BTC-USDT"]
    venue = await api.get("/prices/btcusdt", source="binance")
    assert (venue["price"], venue["source"]) == ("60049", "binance")
    packed = await redis.get(keys.venue_price("BTC-USDT", "binance"))
    assert msgspec.msgpack.decode(packed, type=PriceUpdate).price == Decimal(60049)

    async def stored() -> Any:
        page = await api.get("/candles/BTC-USDT", interval="1m", source="binance")
        assert len([row for row in page["data"] if row["closed"]]) >= 3
        return page

    page = await until(stored)
    second = page["data"][1]
    assert (second["open"], second["high"], second["low"], second["close"]) == (
        "60010",
        "60029",
        "60010",
        "60029",
    )
    assert (second["volume"], second["trades"], second["taker_buy_volume"]) == ("5", 20, "5")
    assert second["quote_volume"] == "300097.5"
    assert second["complete"] is True
    assert second["open_time"] == feed.start_us // 1000 + 60_000

    async def valued() -> Any:
        values = await api.get("/indicators/BTC", interval="1m", names="sma_20,rsi,macd,change")
        assert "rsi_14" in values["values"]
        return values

    values = await until(valued)
    assert values["closed"] in (True, False)
    assert values["values"]["sma_20"] is None or values["warmup"]["have"] >= 20
    history = await api.get("/prices/BTC/history", interval="1m")
    assert history["data"]
    assert got["prices"]
    assert any(update.symbol == "BTC-USD" for batch in got["prices"] for update in batch.prices)
    closed = [
        c
        for batch in got["candles"]
        for c in batch.candles
        if c.source == "binance" and c.symbol == "BTC-USDT"
    ]
    opens = [c.open_time for c in closed if c.revision == 0]
    assert len(opens) == len(set(opens)) >= 3

    async def finals() -> Any:
        updates = [u for batch in got["values"] for u in batch.updates if u.symbol == "BTC-USDT"]
        places = [(u.open_time, u.revision) for u in updates]
        assert len(places) == len(set(places)) >= 3
        return all(update.closed for update in updates)

    await until(finals)


def bars(
    symbol: str, interval: Any, start_ms: int, count: int, step: int, venue: str = "binance"
) -> list[Candle]:
    found = []
    for index in range(count):
        price = Decimal(1000) + Decimal((index * 7919) % 101) / 10
        found.append(
            Candle(
                symbol,
                venue,
                interval,
                start_ms + index * step,
                price,
                price + 2,
                price - 2,
                price + 1,
                Decimal("3.5"),
                Decimal("3.5") * price,
                10,
                Decimal("1.5"),
            )
        )
    return found


async def test_history_is_stored_derived_merged_and_the_live_series_rest_on_it(api: Any, feed: Any) -> None:
    await feed.catalogue()
    await asyncio.sleep(0.5)
    now_minute = feed.start_us // 1000
    start = now_minute - 700 * 60_000
    await feed.send(feed.trade("ETH-USD", 0, "1001", venue="coinbase"), venue="coinbase")
    await feed.history("ETH-USD", "1m", bars("ETH-USD", "1m", start, 700, 60_000, "coinbase"), "coinbase")

    async def merged() -> Any:
        page = await api.get("/candles/ETH", interval="5m", limit=1000)
        rows = [row for row in page["data"] if row["closed"] and row["complete"]]
        assert len(rows) >= 138
        return rows

    rows = await until(merged)
    minutes = (await api.get("/candles/ETH-USD", interval="1m", source="coinbase", limit=1000))["data"]
    by_time = {row["open_time"]: row for row in minutes}
    five = rows[10]
    parts = [by_time[five["open_time"] + k * 60_000] for k in range(5)]
    assert Decimal(five["volume"]) == sum(Decimal(part["volume"]) for part in parts)
    assert five["open"] == parts[0]["open"]
    assert five["close"] == parts[-1]["close"]

    async def warm() -> Any:
        values = await api.get("/indicators/ETH", interval="1m")
        assert values["warmup"]["have"] >= 700
        assert values["values"]["sma_200"] is not None
        return values

    await until(warm)
    first = await api.get(
        "/candles/ETH-USD", interval="1m", source="coinbase", **{"from": start, "limit": 300}
    )
    assert len(first["data"]) == 300
    assert first["data"][0]["open_time"] == start
    spans = [(start, start + 3 * 60_000), (start + 100 * 60_000, start + 102 * 60_000)]
    asked = {
        "interval": "1m",
        "source": "coinbase",
        "spans": ",".join(f"{since}-{until}" for since, until in spans),
    }
    answer = await api.client.get("/candles/ETH-USD/spans", params=asked)
    packed = msgspec.msgpack.decode(answer.content, type=CandleColumns)
    assert packed.open_time == [at for span in spans for at in range(*span, 60_000)]
    assert packed.open.split(" ")[:3] == [bar["open"] for bar in first["data"][:3]]
    assert packed.volume.split(" ")[:3] == [bar["volume"] for bar in first["data"][:3]]
    assert len(packed.complete) == 5
    assert await api.status("/candles/ETH-USD/spans", **asked | {"spans": f"0-{5_001 * 60_000}"}) == 422
    none = await api.client.get("/candles/ETH-USD/spans", params=asked | {"spans": "0-60000"})
    assert msgspec.msgpack.decode(none.content, type=CandleColumns) == CandleColumns()
    second = await api.get(
        "/candles/ETH-USD",
        interval="1m",
        source="coinbase",
        **{"from": start, "limit": 300, "cursor": first["next_cursor"]},
    )
    assert second["data"][0]["open_time"] == start + 300 * 60_000
    for path in ("/candles/ETH-USD", "/prices/ETH-USD/history", "/indicators/ETH-USD/rsi/history"):
        await in_pages(api, path, 0, 50 * 365 * 86_400_000 + start)
    rsi = await api.get("/indicators/ETH-USD/rsi/history", interval="1m", source="coinbase", limit=50)
    assert len(rsi["data"]) == 50
    assert all(0 <= point["values"]["rsi_14"] <= 100 for point in rsi["data"])
    custom = await api.get("/indicators/ETH-USD", interval="1m", names="rsi", **{"rsi.period": 7})
    assert list(custom["values"]) == ["rsi_7"]
    assert await api.status("/indicators/ETH-USD", interval="1m", names="rsi", **{"rsi.period": 9999}) == 422
    assert await api.status("/indicators/ETH-USD", interval="1m", names="nonsense") == 422
    both = await api.get("/indicators/ETH-USD", interval="1m", names="rsi,kama", source="coinbase")
    assert both["engine"] == {"kama": "ta"}
    assert both["values"]["kama"] is not None
    theirs = await api.get(
        "/indicators/ETH-USD/rsi/history", interval="1m", source="coinbase", limit=50, engine="ta"
    )
    assert theirs["engine"] == "ta"
    for mine, ta in zip(rsi["data"], theirs["data"], strict=True):
        assert abs(mine["values"]["rsi_14"] - ta["values"]["rsi"]) < 1e-6
    listed = {row["name"]: row["engine"] for row in (await api.get("/indicators"))["data"]}
    assert listed["kama"] == "ta"
    assert listed["rsi"] == "cryptopulse"


async def in_pages(api: Any, path: str, since: int, until: int) -> None:
    """However long a range is, it comes in pages of `limit`, each bar once."""
    asked = {"interval": "1m", "source": "coinbase", "from": since, "to": until, "limit": 300}
    page = await api.get(path, **asked)
    seen = [row["open_time"] for row in page["data"]]
    assert len(seen) == 300
    while page["next_cursor"]:
        page = await api.get(path, **asked, cursor=page["next_cursor"])
        assert len(page["data"]) <= 300
        seen += [row["open_time"] for row in page["data"]]
    assert len(seen) >= 700
    assert seen == sorted(set(seen))


async def test_coins_symbols_and_fallback_prices(api: Any, feed: Any) -> None:
    await feed.catalogue()
    await feed.reference("dogwifcoin", "WIF", "2.5")

    async def known() -> Any:
        found = await api.get("/coins/search", q="btc")
        assert [coin["id"] for coin in found["coins"]] == ["bitcoin", "batcat"]
        return found

    await until(known)
    symbols = await api.get("/symbols", quote="USDT")
    assert [row["symbol"] for row in symbols["data"]] == ["BTC-USDT", "ETH-USDT", "USDC-USDT"]
    one = await api.get("/symbols/bitcoin")
    assert (one["symbol"], one["coin_id"], one["name"]) == ("BTC-USD", "bitcoin", "Bitcoin")

    async def priced() -> Any:
        found = await api.get("/coins", ids="dogwifcoin,bitcoin,nonsense")
        assert found["prices"]["dogwifcoin"]["current_price"] == "2.5"
        assert found["prices"]["dogwifcoin"]["status"] == "fallback"
        assert found["unknown"] == ["nonsense"]
        return found

    await until(priced)
    fallback = await api.get("/prices/dogwifcoin")
    assert (fallback["price"], fallback["status"], fallback["source"]) == ("2.5", "fallback", "coingecko")

    today = time.time_ns() // 1_000_000 // 86_400_000 * 86_400_000
    four_hours = bars("WIF-USD", "4h", today - 4 * 86_400_000, 24, 4 * 3_600_000, "coingecko")
    await feed.history("WIF-USD", "4h", four_hours, "coingecko")

    async def labelled() -> Any:
        page = await api.get("/candles/dogwifcoin", interval="1d")
        assert page["source"] == "coingecko"
        assert len(page["data"]) == 4
        return page["data"]

    days = await until(labelled)
    assert all(row["complete"] for row in days)
    assert days[0]["open"] == str(four_hours[0].open)
    assert days[0]["close"] == str(four_hours[5].close)
    own = await api.get("/candles/WIF-USD", interval="4h", source="consolidated")
    assert own["data"] == []


async def test_trends_answer_from_what_the_owners_wrote(api: Any, feed: Any) -> None:
    await feed.catalogue()
    await asyncio.sleep(0.5)
    start = feed.start_us // 1000 - 600 * 60_000
    for symbol in ("BTC-USD", "ETH-USD"):
        await feed.history(symbol, "1m", bars(symbol, "1m", start, 600, 60_000, "coinbase"), "coinbase")
        hours = start - start % 3_600_000 - 100 * 3_600_000
        await feed.history(symbol, "1h", bars(symbol, "1h", hours, 109, 3_600_000, "coinbase"), "coinbase")
    await asyncio.sleep(1)
    for minute in range(30):
        await feed.send(
            feed.trade("BTC-USD", minute * 60_000, 1000 + minute, venue="coinbase"),
            feed.trade("ETH-USD", minute * 60_000, 1000 - minute, "3", venue="coinbase"),
            venue="coinbase",
        )

    async def moved() -> Any:
        found = await api.get("/market/movers", window="15m")
        assert [row["symbol"] for row in found["gainers"]] == ["BTC-USD"]
        assert [row["symbol"] for row in found["losers"]] == ["ETH-USD"]
        return found

    await until(moved, 20)

    async def spiked() -> Any:
        spikes = await api.get("/market/volume-spikes")
        assert {row["symbol"] for row in spikes["data"]} == {"BTC-USD", "ETH-USD"}
        return spikes

    await until(spiked)
    trending = await api.get("/market/trending")
    assert set(trending["data"][0]["parts"]) == {"change", "volume", "trades"}
    breadth = await api.get("/market/breadth")
    assert breadth["symbols"] == 2
    matrix = await api.get("/market/correlation", symbols="BTC,ETH", interval="1m", window=100)
    assert matrix["matrix"][0][0] == 1.0
    assert matrix["observations"] == 100
    screened = await api.get(
        "/market/screener", filter="rsi_14@1m>50", columns="sma_20@5m", sort="-rsi_14@1m"
    )
    assert [row["symbol"] for row in screened["data"]] == ["BTC-USD"]
    assert await api.status("/market/screener", filter="nonsense>>1") == 422
    overview = await api.get("/market/overview")
    assert overview["breadth"]["symbols"] == 2


async def test_trades_become_seconds_on_the_bus_that_nobody_stores(api: Any, feed: Any, bus: Any) -> None:
    told: list[tuple[int, Candle]] = []
    keys_seen: list[str] = []

    async def on_seconds(delivery: Delivery) -> None:
        keys_seen.append(delivery.routing_key)
        told.extend(zip(delivery.message.offsets, delivery.message.candles, strict=True))

    await bus.subscribe(Queue(consumer="t", topic=CANDLES, bindings=("live.#",), exclusive=True), on_seconds)
    await asyncio.sleep(3.5)
    start = time.time_ns() // 1_000_000 // 1_000 * 1_000 + 1_000
    feed.start_us = start * 1_000
    for step in range(4):
        await asyncio.sleep(max(0.0, (start + step * 1_000 + 450) / 1_000 - time.time()))
        if step != 2:
            low, high = (
                feed.trade("BTC-USDT", step * 1_000 + at, 60_000 + step * 10 + at // 100, "0.25")
                for at in (100, 400)
            )
            await feed.send(low, high, simulated=True)

    def mine(source: str) -> list[tuple[int, Candle]]:
        return [row for row in told if (row[1].symbol, row[1].source) == ("BTC-USDT", source)]

    async def closed() -> bool:
        return all(len(mine(source)) >= 5 for source in ("binance", "consolidated"))

    await until(closed)
    for source in ("binance", "consolidated"):
        offsets = [offset for offset, _ in mine(source)]
        bars = {bar.open_time - start: bar for _, bar in mine(source)}
        assert offsets == list(range(1, len(offsets) + 1))
        assert list(bars)[:5] == [0, 1_000, 2_000, 3_000, 4_000]
        assert [bars[at].trades for at in list(bars)[:5]] == [2, 2, 0, 2, 0]
        assert (bars[1_000].close, bars[1_000].volume, bars[1_000].interval) == (
            Decimal(60_014),
            Decimal("0.5"),
            "1s",
        )
        assert (bars[2_000].open, bars[2_000].close, bars[2_000].closed) == (
            Decimal(60_014),
            Decimal(60_014),
            True,
        )
        assert bars[1_000].simulated
        assert bars[1_000].complete
    assert set(keys_seen) <= {"live.1s.0", "live.1s.1"}
    assert await api.status("/candles/BTC-USDT", interval="1s") == 422
