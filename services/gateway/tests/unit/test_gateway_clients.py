"""Existing clients run unchanged: pycoingecko with another base URL, a TradingView UDF adapter's calls, chart formats."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pycoingecko import CoinGeckoAPI

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.resolver import Catalogue, Pair

HOUR = 3_600_000
NOW = time.time_ns() // 1_000_000
START = NOW - NOW % HOUR - 2_500 * HOUR


def bar(number: int) -> dict[str, Any]:
    return {
        "open_time": START + number * HOUR, "open": "100.5", "high": "110", "low": "90", "close": str(100 + number),
        "volume": "1.5", "quote_volume": "150", "trades": 3, "taker_buy_volume": "1", "closed": True, "complete": True,
        "revision": 0,
    }  # fmt: skip


@pytest.fixture
def market(gateway: Any) -> Any:
    coins = [
        Coin(id="bitcoin", symbol="btc", name="Bitcoin", market_cap_rank=1, market_cap=Decimal(1_300_000), volume_24h=Decimal(5_000),
             circulating_supply=Decimal(20)),
        Coin(id="ethereum", symbol="eth", name="Ethereum", market_cap_rank=2, market_cap=Decimal(400_000), price=Decimal(3_000)),
    ]  # fmt: skip
    pairs = [
        Pair("BTC-USD", ["coinbase"], precision=2),
        Pair("ETH-USD", ["coinbase"]),
        Pair("USDT-USD", ["coinbase"]),
    ]
    gateway.market.use_catalogue(
        Catalogue(version=2, pairs=pairs, coins=coins, asset_coins={"BTC": "bitcoin", "ETH": "ethereum"})
    )
    gateway.price("BTC-USD", "65000.5", change_24h_pct=Decimal("1.25"), high_24h=Decimal(66_000))
    gateway.price("ETH-USD", "3250.025")
    gateway.services.bars = [bar(number) for number in range(2_500)]
    return gateway


async def test_pycoingecko_runs_with_another_base_url(market: Any) -> None:
    client = CoinGeckoAPI()
    client.api_base_url = f"http://{market.url}/coingecko/api/v3/"
    client.session.trust_env = False

    async def ask(name: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(client, name), **arguments)

    assert "gecko_says" in await ask("ping")
    prices = await ask("get_price", ids="bitcoin,ethereum,nothing", vs_currencies="usd,eth", include_24hr_change="true",
                       include_market_cap="true", include_last_updated_at="true")  # fmt: skip
    assert prices["bitcoin"]["usd"] == 65000.5
    assert prices["bitcoin"]["eth"] == pytest.approx(65000.5 / 3250.025)
    assert prices["bitcoin"]["usd_24h_change"] == 1.25
    assert prices["bitcoin"]["usd_market_cap"] == 1_300_000
    assert prices.keys() == {"bitcoin", "ethereum"}
    assert {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin"} in await ask("get_coins_list")
    rows = await ask("get_coins_markets", vs_currency="usd")
    assert [row["id"] for row in rows] == ["bitcoin", "ethereum"]
    assert rows[0]["high_24h"] == 66_000
    ohlc = await ask("get_coin_ohlc_by_id", id="bitcoin", vs_currency="usd", days="7")
    assert ohlc[0][0] > START
    assert [len(row) for row in ohlc] == [5] * len(ohlc)
    chart = await ask("get_coin_market_chart_by_id", id="bitcoin", vs_currency="usd", days="30")
    assert chart.keys() == {"prices", "market_caps", "total_volumes"}
    assert chart["market_caps"][-1][1] == pytest.approx(chart["prices"][-1][1] * 20)
    world = await ask("get_global")
    assert world["market_cap_percentage"]["btc"] == pytest.approx(1_300_000 / 17_000)
    market.services.says(
        "indicators",
        "GET",
        "/coins/search",
        {"coins": [{"id": "bitcoin", "name": "Bitcoin", "symbol": "btc"}]},
    )
    assert (await ask("search", query="bit"))["coins"][0]["api_symbol"] == "bitcoin"
    market.services.says(
        "indicators", "GET", "/market/trending", {"data": [{"symbol": "ETH-USD", "score": 3}]}
    )
    assert (await ask("get_search_trending"))["coins"][0]["item"]["id"] == "ethereum"
    with pytest.raises(ValueError, match="not found"):
        await ask("get_coin_ohlc_by_id", id="nothing", vs_currency="usd", days="7")


async def test_fifty_years_of_a_coin_are_what_there_is_of_it(market: Any) -> None:
    path = "/coingecko/api/v3/coins/bitcoin/market_chart"
    answer = await market.http.get(path, params={"vs_currency": "usd", "days": "18250"})
    assert (answer.status_code, len(answer.json()["prices"])) == (200, 2_500)
    for days in ("0", "-1", "nan", "inf", "soon"):
        refused = await market.http.get(path, params={"vs_currency": "usd", "days": days})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-days")


async def udf(gateway: Any, path: str, **query: Any) -> Any:
    answer = await gateway.http.get(f"/udf/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_udf_range_in_the_future_has_no_data_and_says_where_there_is(market: Any) -> None:
    for since, until in ((9_999_999_999, 99_999_999_999), (4_102_444_800, 1), (99_999_999_999, 5)):
        found = await udf(
            market, "history", symbol="BTC-USD", resolution="60", **{"from": since, "to": until}
        )
        assert found["s"] == "no_data"
        assert found.get("nextTime", 0) <= since
    assert all(
        int(dict(parse_qsl(call["query"]))["to"]) < 4_102_444_800_000 for call in market.services.calls
    )


async def test_a_long_udf_history_costs_what_its_pages_cost(market: Any) -> None:
    def level() -> float:
        return float(sum(market.limiter.tats.values()))

    async def cost(count: int) -> float:
        market.limiter.tats.clear()
        began = market.clock.monotonic() * 1e6
        await udf(market, "history", symbol="BTC-USD", resolution="60", to=NOW // 1_000, countback=count)
        emission: float = market.limits.of("anonymous", "reads").emission_us
        return float((level() - began) / emission)

    assert await cost(1_000) == pytest.approx(3, abs=1.2)
    assert await cost(2_400) == pytest.approx(3 + 2 + 0.8, abs=1.2)


async def test_a_udf_adapter_finds_its_way(market: Any) -> None:
    config = await udf(market, "config")
    assert config["supports_search"] != config["supports_group_request"]
    assert {"1", "60", "1D"} <= set(config["supported_resolutions"])
    clock = await market.http.get("/udf/time")
    assert abs(int(clock.text) - market.clock.now_ms() // 1_000) <= 1
    assert clock.headers["content-type"].startswith("text/plain")
    info = await udf(market, "symbols", symbol="CRYPTOPULSE:BTC-USD")
    assert (info["ticker"], info["pricescale"], info["minmov"], info["session"]) == (
        "BTC-USD",
        100,
        1,
        "24x7",
    )
    assert await udf(market, "symbols", symbol="FOO") == {"s": "error", "errmsg": "unknown_symbol"}
    hits = await udf(market, "search", query="btc", limit=30, type="", exchange="")
    assert hits[0]["symbol"] == "BTC-USD"
    assert (await udf(market, "symbol_info", group=""))["symbol"][:2] == ["BTC-USD", "ETH-USD"]
    quotes = await udf(market, "quotes", symbols="BTC-USD,FOO")
    assert [row["s"] for row in quotes["d"]] == ["ok", "error"]
    assert quotes["d"][0]["v"]["lp"] == 65000.5
    assert (await udf(market, "marks", symbol="BTC-USD"))["id"] == []
    assert await udf(market, "timescale_marks", symbol="BTC-USD") == []


async def test_udf_history_is_ascending_exclusive_and_counts_back(market: Any) -> None:
    seconds = START // 1_000
    bars = await udf(
        market, "history", symbol="BTC-USD", resolution="60", **{"from": seconds, "to": seconds + 5 * 3_600}
    )
    assert bars["s"] == "ok"
    assert bars["t"] == [seconds + n * 3_600 for n in range(5)]
    assert bars["c"][-1] == 104
    back = await udf(market, "history", symbol="BTC-USD", resolution="60", countback=1_500,
                     **{"from": seconds + 1_999 * 3_600, "to": seconds + 2_000 * 3_600})  # fmt: skip
    assert len(back["t"]) == 1_500
    assert back["t"][-1] == seconds + 1_999 * 3_600


async def test_udf_says_where_older_data_is(market: Any) -> None:
    hole = START // 1_000 + 10_000 * 3_600
    market.clock.ahead += 20_000 * 3_600
    gap = await udf(
        market, "history", symbol="BTC-USD", resolution="60", **{"from": hole, "to": hole + 3_600}
    )
    last = START // 1_000 + 2_499 * 3_600
    assert gap == {"s": "no_data", "nextTime": last, "nb": last}
    before = await udf(market, "history", symbol="BTC-USD", resolution="60", **{"from": 1, "to": 3_600})
    assert before == {"s": "no_data"}
    assert (await udf(market, "history", symbol="BTC-USD", resolution="7", **{"from": 1, "to": 2}))[
        "s"
    ] == "error"


async def test_candles_as_columns_csv_and_for_lightweight_charts(market: Any) -> None:
    path = "/v1/candles/BTC"
    query = {"interval": "1h", "limit": "3"}
    plain = (await market.http.get(path, params=query)).json()
    assert [row["close"] for row in plain["data"]] == ["2597", "2598", "2599"]
    columns = (await market.http.get(path, params={**query, "format": "columns"})).json()
    assert columns["data"]["close"] == ["2597", "2598", "2599"]
    text = await market.http.get("/prices/BTC/history", params={**query, "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert text.headers["content-type"].startswith("text/csv")
    assert [row["close"] for row in rows] == ["2597", "2598", "2599"]
    light = (await market.http.get(path, params={**query, "format": "lwc"})).json()
    assert light[0] == {
        "time": (START + 2_497 * HOUR) // 1_000,
        "open": 100.5,
        "high": 110,
        "low": 90,
        "close": 2597,
        "value": 1.5,
    }
    assert (await market.http.get(path, params={**query, "format": "xml"})).status_code == 422


@pytest.mark.parametrize("path", ["/v1/candles/BTC", "/v1/prices/BTC/history"])
async def test_candles_of_one_second_are_refused_with_the_name_of_their_stream(
    market: Any, path: str
) -> None:
    refused = await market.http.get(path, params={"interval": "1s"})
    assert refused.status_code == 422
    body = refused.json()
    assert body["detail"] == "interval 1s is live only: subscribe to candles:1s on /v1/ws"
    assert [(fault["parameter"], fault["code"]) for fault in body["errors"]] == [("interval", "live-only")]
