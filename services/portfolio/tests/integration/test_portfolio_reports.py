"""Lots, gains, performance, history, past values and exports, with figures worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

DAY = 86_400_000


def today() -> int:
    return int(time.time() * 1000) // DAY


def at(day: int, hour: int = 12) -> str:
    return (datetime(1970, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)).isoformat()


async def a_portfolio(client: Any, **fields: Any) -> int:
    made = await client.post("/portfolios", content=json.dumps({"name": "Main", **fields}))
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


async def add(client: Any, number: int, **fields: Any) -> Any:
    made = await client.post(
        f"/portfolios/{number}/transactions",
        content=json.dumps({"type": "buy", "asset": "BTC", "quantity": "1", **fields}),
    )
    assert made.status_code == 201, made.text
    return made.json()


async def test_performance_links_days_and_nets_flows(service: Any) -> None:
    now = today()
    service.upstream.daily["BTC-USD"] = {now - 4: "80", now - 3: "100", now - 2: "110", now - 1: "121"}
    service.upstream.daily["ETH-USD"] = {now - 4: "10", now - 3: "10", now - 2: "10", now - 1: "10"}
    await service.price("BTC", "121")
    await service.price("ETH", "20")
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number, price="100", timestamp=at(now - 3))
    await add(alice, number, price="110", timestamp=at(now - 2))
    body = (
        await alice.get(f"/portfolios/{number}/performance", params={"benchmark": "BTC:50,ETH:50"})
    ).json()
    assert body["from_day"] == str(datetime.fromtimestamp((now - 3) * 86_400, UTC).date())
    assert body["end_value"] == "242"
    assert body["net_flow"] == "210"
    assert body["pnl"] == "32"
    # day 1: 100/100, day 2: 220/(100+110), day 3: 242/220, day 4: 242/242
    assert body["twr"]["value"] == pytest.approx(220 / 210 * 1.1 - 1, rel=1e-12)
    assert body["twr_annualised"] == {"value": None, "reason": "shorter-than-a-year"}
    assert body["sharpe"]["reason"] == "fewer-than-30-returns"
    assert body["simple_return"]["value"] == pytest.approx(32 / 210)
    assert body["benchmark"]["twr"]["value"] == pytest.approx(0.5 * 121 / 80 + 0.5 * 2 - 1)
    assert body["xirr"] == {"value": None, "reason": "no-root"}  # 15 % in three days is no annual rate
    assert 0.1 < body["mwr_period"]["value"] < 0.2
    assert body["contributions"] == [{"asset": "BTC", "gain": "32", "percent_of_total": "100"}]
    assert body["complete"] is True
    history = (await alice.get(f"/portfolios/{number}/history")).json()["data"]
    assert [point["value"] for point in history] == ["100", "220", "242", "242"]
    short = (await alice.get(f"/portfolios/{number}/performance", params={"window": "1d"})).json()
    assert (short["start_value"], short["pnl"]) == ("242", "0")


async def test_a_hole_in_the_closes_is_carried_and_flagged_then_null(service: Any) -> None:
    now = today()
    service.upstream.daily["BTC-USD"] = {now - 12: "100", now - 11: "100"}
    await service.price("BTC", "150")
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number, price="100", timestamp=at(now - 12))
    history = (await alice.get(f"/portfolios/{number}/history")).json()["data"]
    assert [point["carried"] for point in history[1:5]] == [[], ["BTC"], ["BTC"], ["BTC"]]
    assert [point["value"] for point in history[8:]] == ["100", None, None, None, "150"]
    performance = (await alice.get(f"/portfolios/{number}/performance")).json()
    assert performance["complete"] is False
    assert performance["twr"]["value"] == pytest.approx(0.5)
    assert performance["gap_days"] == 7


async def test_lots_and_realised_gains_under_own_and_other_methods(service: Any) -> None:
    await service.price("BTC", "400")
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number, price="100", fee="1", timestamp="2022-01-01T00:00:00Z")
    await add(alice, number, price="300", timestamp="2024-01-01T00:00:00Z")
    await add(alice, number, type="sell", price="350", quantity="0.5", timestamp="2024-02-01T00:00:00Z")
    path = f"/portfolios/{number}"
    own = (await alice.get(f"{path}/realised")).json()
    assert [(g["gain"], g["term"]) for g in own["data"]] == [("124.5", "long")]
    assert own["years"][0]["long_gain"] == "124.5"
    other = (await alice.get(f"{path}/realised", params={"method": "hifo"})).json()
    assert [(g["gain"], g["term"]) for g in other["data"]] == [("25", "short")]
    lots = (await alice.get(f"{path}/lots")).json()["data"]
    assert [(lot["quantity_remaining"], lot["cost_remaining"], lot["unrealised_pnl"]) for lot in lots] == [
        ("0.5", "50.5", "149.5"),
        ("1", "300", "100"),
    ]
    what_if = (await alice.get(f"{path}/holdings", params={"method": "hifo"})).json()
    assert (what_if["method"], what_if["holdings"][0]["cost"]) == ("hifo", "251")
    changed = await alice.patch(path, content='{"method":"hifo"}')
    assert changed.status_code == 200
    now_own = (await alice.get(f"{path}/realised")).json()
    assert now_own["data"] == [{**other["data"][0]}]
    report = await alice.get(f"{path}/realised", params={"format": "csv", "year": "2024"})
    rows = list(csv.DictReader(io.StringIO(report.text)))
    assert rows[0]["gain"] == "25"
    assert (await alice.get(f"{path}/realised", params={"year": "2023"})).json()["data"] == []


async def test_holdings_of_the_past_are_valued_at_the_closes_of_then(service: Any) -> None:
    now = today()
    moment = (now - 5) * DAY + 3_600_000
    service.upstream.minutes["BTC-USD", moment] = "150"
    await service.price("BTC", "400")
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number, price="100", timestamp=at(now - 9))
    await add(alice, number, price="300", timestamp=at(now - 2))
    past = (await alice.get(f"/portfolios/{number}/holdings", params={"as_of": str(moment)})).json()
    assert (past["totals"]["value"], past["totals"]["cost"]) == ("150", "100")
    future = await alice.get(f"/portfolios/{number}/holdings", params={"as_of": "2099-01-01T00:00:00Z"})
    assert future.status_code == 422


async def test_prices_left_out_are_taken_live_or_from_the_candle_of_the_minute(service: Any) -> None:
    await service.price("BTC", "400")
    await service.price("EUR", "1.25")
    minute = (today() - 3) * DAY + 60_000
    service.upstream.minutes["BTC-USD", minute] = "250"
    service.upstream.minutes["EUR-USD", minute] = "1.25"
    alice = service.as_user()
    number = await a_portfolio(alice, base_currency="EUR")
    live = await add(alice, number)
    assert (live["price"], live["price_source"], live["currency"]) == ("320", "live", "EUR")
    past = await add(alice, number, timestamp=minute + 30_000)
    assert (past["price"], past["price_source"]) == ("200", "candle")
    dollars = await add(alice, number, price="100", currency="USD")
    assert (dollars["value"], dollars["fx_rate"]) == ("80", "0.8")
    held = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert (held["totals"]["value"], held["totals"]["cost"]) == ("960", "600")
    body = json.dumps({"type": "buy", "asset": "BTC", "quantity": "1", "timestamp": "2012-01-01T00:00:00Z"})
    unknown = await alice.post(f"/portfolios/{number}/transactions", content=body)
    assert unknown.status_code == 422
    assert unknown.json()["code"] in {"price-unknown", "rate-unknown"}


async def test_an_edit_that_is_taken_back_restores_everything(service: Any) -> None:
    await service.price("BTC", "400")
    alice = service.as_user()
    number = await a_portfolio(alice)
    first = await add(alice, number, price="100", quantity="3", fee="1", timestamp="2022-01-01T00:00:00Z")
    await add(alice, number, price="200", type="sell", timestamp="2022-03-01T00:00:00Z")

    async def state() -> Any:
        found: dict[str, Any] = {}
        for name in ("holdings", "lots", "realised"):
            body = (await alice.get(f"/portfolios/{number}/{name}")).json()
            found[name] = {k: v for k, v in body.items() if k not in {"version", "as_of", "holdings"}}
        found["positions"] = [
            {**h, "price_age_ms": 0}
            for h in (await alice.get(f"/portfolios/{number}/holdings")).json()["holdings"]
        ]
        return found

    before = await state()
    path = f"/portfolios/{number}/transactions/{first['id']}"
    assert (await alice.patch(path, content='{"price":"150","quantity":"2","fee":"7"}')).status_code == 200
    assert await state() != before
    back = await alice.patch(path, content='{"price":"100","quantity":"3","fee":"1"}')
    assert back.json()["revision"] == 3
    assert await state() == before
