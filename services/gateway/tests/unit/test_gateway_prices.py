"""Prices over HTTP: shapes, freshness, sources, cross rates, conditional and bulk reads, and every refusal."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.gateway.domain import price_body


async def test_a_price_has_every_field_of_its_shape(gateway: Any) -> None:
    gateway.price("BTC-USD", "67012.350", bid=Decimal("67012.3"), change_24h_pct=Decimal("-1.50"))
    answer = await gateway.http.get("/prices/BTC")
    body = answer.json()
    assert answer.status_code == 200
    assert body["symbol"] == "BTC-USD"
    assert body["price"] == "67012.35"
    assert body["bid"] == "67012.3"
    assert body["ask"] is None
    assert body["change_24h_pct"] == "-1.5"
    assert body["stale"] is False
    assert body["status"] == "ok"
    assert 0 <= body["age_ms"] < 5_000
    assert body["sources_used"] == ["consolidated"]
    assert isinstance(body["ts"], int)
    assert body["simulated"] is False


@pytest.mark.parametrize("name", ["BTC", "btc", "BTC-USD", "BTC%2FUSD", "BTC_USD", "bitcoin"])
@pytest.mark.parametrize("root", ["", "/v1"])
async def test_every_spelling_means_the_same(gateway: Any, name: str, root: str) -> None:
    gateway.price("BTC-USD", "67000")
    answer = await gateway.http.get(f"{root}/prices/{name}")
    assert answer.json()["symbol"] == "BTC-USD"


async def test_a_silent_price_is_stale_and_says_its_age(gateway: Any) -> None:
    gateway.price("BTC-USD", "67000")
    gateway.clock.advance(31)
    body = (await gateway.http.get("/prices/BTC")).json()
    assert (body["stale"], body["status"]) == (True, "stale")
    assert body["age_ms"] >= 31_000
    assert body["price"] == "67000"


async def test_a_limit_on_age_is_answered_with_503(gateway: Any) -> None:
    gateway.price("BTC-USD", "67000")
    gateway.clock.advance(2)
    answer = await gateway.http.get("/v1/prices/BTC?max_age_ms=1000")
    assert answer.status_code == 503
    assert answer.json()["code"] == "stale-price"
    assert answer.headers["retry-after"] == "1"


async def test_unknown_symbols_and_absent_prices_differ(gateway: Any) -> None:
    unknown = await gateway.http.get("/prices/FOOBAR")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-symbol")
    absent = await gateway.http.get("/prices/ETH")
    assert (absent.status_code, absent.json()["code"]) == (404, "no-price")
    assert absent.headers["content-type"] == "application/problem+json"


async def test_a_venue_answers_by_its_name(gateway: Any) -> None:
    gateway.price("BTC-USDT", "67001", source="binance", volume_24h=Decimal(5))
    gateway.price("BTC-USDT", "67009", source="okx", volume_24h=Decimal(50))
    assert (await gateway.http.get("/prices/BTC-USDT?source=binance")).json()["price"] == "67001"
    assert (await gateway.http.get("/prices/BTC-USDT")).json()["source"] == "okx"
    assert (await gateway.http.get("/prices/BTC-USDT?source=nowhere")).status_code == 404


async def test_a_pair_without_market_is_crossed(gateway: Any) -> None:
    gateway.price("BTC-USD", "60000", bid=Decimal(59990), ask=Decimal(60010))
    gateway.price("ETH-USD", "3000", bid=Decimal(2999), ask=Decimal(3001))
    body = (await gateway.http.get("/v1/prices/BTC-ETH")).json()
    assert body["price"] == "20"
    assert body["source"] == "consolidated"
    assert Decimal(body["bid"]) == price_body.inverse_free_ratio(Decimal(59990), Decimal(3001))
    assert body["high_24h"] is None


async def test_a_known_version_is_answered_with_304(gateway: Any) -> None:
    gateway.price("BTC-USD", "67000")
    first = await gateway.http.get("/v1/prices/BTC")
    again = await gateway.http.get("/v1/prices/BTC", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    gateway.price("BTC-USD", "67001", seq=2)
    fresh = await gateway.http.get("/v1/prices/BTC", headers={"If-None-Match": first.headers["etag"]})
    assert fresh.status_code == 200


async def test_older_updates_do_not_replace_newer_ones(gateway: Any) -> None:
    gateway.price("BTC-USD", "2", seq=5)
    gateway.price("BTC-USD", "1", seq=4)
    assert (await gateway.http.get("/prices/BTC")).json()["price"] == "2"


async def test_many_symbols_with_partial_errors(gateway: Any) -> None:
    gateway.price("BTC-USD", "67000")
    body = (await gateway.http.get("/v1/prices?symbols=BTC,FOOBAR,ETH")).json()
    assert [row["symbol"] for row in body["data"]] == ["BTC-USD"]
    assert [row["code"] for row in body["errors"]] == ["unknown-symbol", "no-price"]
    too_many = await gateway.http.get("/v1/prices", params={"symbols": ",".join(f"A{n}" for n in range(251))})
    assert too_many.status_code == 422
    assert "250" in too_many.json()["detail"]


async def test_unknown_query_parameters_are_named(gateway: Any) -> None:
    gateway.price("BTC-USD", "67000")
    answer = await gateway.http.get("/v1/prices/BTC?sauce=binance")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "sauce"


async def test_a_cold_price_comes_from_the_store(gateway: Any) -> None:
    update = gateway.price("ETH-USD", "3000")
    gateway.market._prices.clear()
    gateway.prices.stored["ETH-USD", "consolidated"] = update
    assert (await gateway.http.get("/prices/ETH")).json()["price"] == "3000"


async def test_public_market_data_may_be_cached_and_is_not_sent_twice(gateway: Any) -> None:
    gateway.services.says("indicators", "GET", "/market/overview", {"as_of": 1})
    first = await gateway.http.get("/v1/market/overview")
    assert first.headers["cache-control"].startswith("public, max-age=1")
    again = await gateway.http.get("/v1/market/overview", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await gateway.http.get("/v1/market/overview", headers={"If-None-Match": '"else"'})
    assert other.status_code == 200
    mine = await gateway.http.get("/v1/market/overview", headers=gateway.token())
    assert mine.headers["cache-control"] == "no-store"
