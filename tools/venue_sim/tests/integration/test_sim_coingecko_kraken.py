"""CoinGecko and Kraken as a client sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tools.venue_sim.testing import Simulation, running_simulator, tapped
from tools.venue_sim.venues.coingecko.site import CoinGeckoOptions

SEED_IDS = (
    "bitcoin",
    "ethereum",
    "solana",
    "dogecoin",
    "cardano",
    "polkadot",
    "tether",
    "usd-coin",
    "binancecoin",
    "ripple",
)


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    options = CoinGeckoOptions(per_minute=1000)
    async with running_simulator(
        rate=400.0, binance_port=None, coinbase_port=None, coingecko=options
    ) as running:
        yield running


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, headers=headers)


async def test_coins_of_the_default_set_are_priced_and_ranked(sim: Simulation) -> None:
    url = sim.urls.coingecko_api
    prices = (await get(f"{url}/simple/price?ids={','.join(SEED_IDS)},nobody&vs_currencies=usd,eur")).json()
    assert set(prices) == set(SEED_IDS)
    assert all(row["usd"] > 0 and row["eur"] > 0 for row in prices.values())

    rows = (await get(f"{url}/coins/markets?vs_currency=usd&per_page=250")).json()
    assert len(rows) >= 60
    assert [row["market_cap_rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["id"] == "bitcoin"
    assert all(row["low_24h"] <= row["current_price"] <= row["high_24h"] for row in rows)
    second = (await get(f"{url}/coins/markets?vs_currency=usd&per_page=10&page=2")).json()
    assert [row["id"] for row in second] == [row["id"] for row in rows[10:20]]
    some = (await get(f"{url}/coins/markets?vs_currency=usd&ids=leo-token,pepe")).json()
    assert {row["id"] for row in some} == {"leo-token", "pepe"}


async def test_symbols_are_not_unique_but_ids_are(sim: Simulation) -> None:
    coins = (await get(sim.urls.coingecko_api + "/coins/list")).json()
    assert len({coin["id"] for coin in coins}) == len(coins)
    assert [coin["id"] for coin in coins if coin["symbol"] == "btc"] == ["batcat", "bitcoin"] or len(
        [coin for coin in coins if coin["symbol"] == "btc"]
    ) == 2


@pytest.mark.parametrize(("days", "step"), [(1, 1_800_000), (7, 14_400_000), (90, 345_600_000)])
async def test_ohlc_is_closed_at_its_time_in_the_documented_steps(
    sim: Simulation, days: int, step: int
) -> None:
    rows = (await get(sim.urls.coingecko_api + f"/coins/solana/ohlc?vs_currency=usd&days={days}")).json()
    times = [row[0] for row in rows]
    assert [later - earlier for earlier, later in pairwise(times)] == [step] * (len(rows) - 1)
    assert all(row[3] <= min(row[1], row[4]) <= max(row[1], row[4]) <= row[2] for row in rows)


async def test_charts_have_the_documented_grain(sim: Simulation) -> None:
    def gap(chart: Any) -> int:
        return int(chart["prices"][1][0] - chart["prices"][0][0])

    url = sim.urls.coingecko_api + "/coins/bitcoin/market_chart?vs_currency=usd&days="
    assert gap((await get(url + "1")).json()) == 300_000
    assert gap((await get(url + "30")).json()) == 3_600_000
    assert gap((await get(url + "365")).json()) == 86_400_000
    assert (await get(url + "800")).status_code == 401
    span = (
        await get(
            sim.urls.coingecko_api
            + "/coins/bitcoin/market_chart/range?vs_currency=usd&from=1795046400&to=1795050000"
        )
    ).json()
    assert len(span["prices"]) == len(span["total_volumes"]) == 13


async def test_any_prefix_in_front_is_a_proxy(sim: Simulation) -> None:
    host = sim.urls.coingecko_api.removesuffix("/api/v3")
    target = "https://api.coingecko.com/api/v3/simple/price?ids=bitcoin&vs_currencies=usd"
    for url in (
        f"{host}/proxy/{target}",
        f"{host}/?url={quote(target, safe='')}",
        f"{host}/some/prefix/api/v3/simple/price?ids=bitcoin&vs_currencies=usd",
    ):
        assert (await get(url)).json()["bitcoin"]["usd"] > 0


async def test_keys_plans_and_budgets() -> None:
    options = CoinGeckoOptions(key="right", per_minute=2, retry_after=17)
    async with running_simulator(coingecko=options, binance_port=None, coinbase_port=None) as sim:
        ping = sim.urls.coingecko_api + "/ping"
        wrong_host = await get(ping, **{"x-cg-pro-api-key": "right"})
        assert (wrong_host.status_code, wrong_host.json()["status"]["error_code"]) == (400, 10010)
        wrong_key = await get(ping, **{"x-cg-demo-api-key": "wrong"})
        assert (wrong_key.status_code, wrong_key.json()["status"]["error_code"]) == (401, 10002)
        assert (await get(ping, **{"x-cg-demo-api-key": "right"})).status_code == 200
        assert (await get(ping + "?x_cg_demo_api_key=right")).status_code == 200
        refused = await get(ping)
        assert (refused.status_code, refused.json()["status"]["error_code"]) == (429, 429)
        assert refused.headers["Retry-After"] == "17"
    async with running_simulator(coingecko=CoinGeckoOptions(plan="pro"), binance_port=None) as sim:
        ping = sim.urls.coingecko_api + "/ping"
        assert (await get(ping, **{"x-cg-demo-api-key": "k"})).json()["status"]["error_code"] == 10011
        assert (await get(ping)).json()["status"]["error_code"] == 10002
        assert (await get(ping, **{"x-cg-pro-api-key": "k"})).status_code == 200


async def test_unknown_things_are_errors(sim: Simulation) -> None:
    answer = await get(sim.urls.coingecko_api + "/coins/nobody")
    assert (answer.status_code, answer.json()) == (404, {"error": "coin not found"})
    assert (await get(sim.urls.coingecko_api + "/coins/markets?vs_currency=shells")).status_code == 422
    assert (await get(sim.urls.coingecko_api + "/ping", **{"User-Agent": ""})).status_code in {200, 403}


async def test_kraken_v1_speaks_first_and_names_bitcoin_xbt(sim: Simulation) -> None:
    wanted = {
        "event": "subscribe",
        "pair": ["XBT/USD", "NO/PE"],
        "subscription": {"name": "trade"},
        "reqid": 4,
    }
    async with tapped(sim.urls.kraken_ws, wanted) as tap:
        hello = await tap.until(lambda said: isinstance(said, dict))
        status = await tap.until(lambda said: isinstance(said, dict) and said.get("status") == "subscribed")
        error = await tap.until(lambda said: isinstance(said, dict) and said.get("status") == "error")
        trade = await tap.until(lambda said: isinstance(said, list))

    assert (hello["event"], hello["status"]) == ("systemStatus", "online")
    assert status["reqid"] == 4
    assert "NO/PE" in error["errorMessage"]
    assert (trade[0], trade[2], trade[3]) == (status["channelID"], "trade", "XBT/USD")


async def test_kraken_v2_has_ids_and_a_snapshot(sim: Simulation) -> None:
    wanted = {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}, "req_id": 9}
    async with tapped(sim.urls.kraken_ws + "/v2", wanted) as tap:
        answer = await tap.until(lambda said: said.get("method") == "subscribe")
        snapshot = await tap.until(lambda said: said.get("channel") == "trade" and said["type"] == "snapshot")
        update = await tap.until(lambda said: said.get("channel") == "trade" and said["type"] == "update")

        booked = await sim.control.trades(
            "kraken", "BTC-USD", from_id=snapshot["data"][0]["trade_id"], limit=50
        )

    assert [row["side"] for row in snapshot["data"]] == [trade["taker"] for trade in booked]
    assert (answer["success"], answer["req_id"]) == (True, 9)
    assert len(snapshot["data"]) == 50
    assert update["data"][0]["trade_id"] == snapshot["data"][-1]["trade_id"] + 1


async def test_kraken_rest_in_its_envelope(sim: Simulation) -> None:
    url = sim.urls.kraken_api
    pairs = (await get(url + "/AssetPairs")).json()["result"]
    assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"
    ohlc = (await get(url + "/OHLC?pair=XBTUSD&interval=1")).json()["result"]
    rows = ohlc["XXBTZUSD"]
    assert [later[0] - earlier[0] for earlier, later in pairwise(rows)] == [60] * (len(rows) - 1)
    assert ohlc["last"] == rows[-2][0]
    trades = (await get(url + f"/Trades?pair=XBT/USD&since={rows[-5][0] * 10**9}")).json()["result"]
    ids = [row[6] for row in trades["XXBTZUSD"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    booked = await sim.control.trades("kraken", "BTC-USD", from_id=ids[0], limit=len(ids))
    assert [{"b": "buy", "s": "sell"}[row[3]] for row in trades["XXBTZUSD"]] == [
        trade["taker"] for trade in booked
    ]
    unknown = await get(url + "/Trades?pair=NOPE")
    assert (unknown.status_code, unknown.json()) == (200, {"error": ["EQuery:Unknown asset pair"]})
