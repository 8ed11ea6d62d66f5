"""The second seed's contracts: its REST shapes and its sockets' message sequences, word by word."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from cryptopulse.gateway.domain import seed

TX = {
    "id": 7, "portfolio_id": 3, "revision": 1, "type": "buy", "asset": "BTC", "coin_id": "bitcoin", "coin_name": "Bitcoin",
    "coin_symbol": "btc", "quantity": "0.1234567890123456789", "price": "65000.5", "timestamp": "2026-01-02T03:04:05Z",
}  # fmt: skip
PORTFOLIO = {
    "id": 3,
    "name": "Main",
    "created_at": "2026-01-01T00:00:00Z",
    "transaction_count": 1,
    "transactions": [TX],
}
NOT_FOUND = {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "no such thing", "instance": "",
             "code": "not-found", "request_id": "", "errors": []}  # fmt: skip


@pytest.mark.parametrize("slash", ["/", ""])
async def test_portfolios_are_listed_with_json_numbers(gateway: Any, slash: str) -> None:
    gateway.services.says("portfolio", "GET", "/portfolios", {"data": [PORTFOLIO], "next_cursor": None})
    answer = await gateway.http.get(f"/api/portfolios{slash}", headers=gateway.token())
    assert answer.status_code == 200
    (found,) = answer.json()["portfolios"]
    assert found.keys() == {"id", "name", "created_at", "transaction_count", "transactions"}
    (row,) = found["transactions"]
    assert row.keys() == {
        "id", "coin_id", "coin_name", "coin_symbol", "amount", "price_usd", "transaction_type", "timestamp", "total_value",
    }  # fmt: skip
    assert b'"amount":0.1234567890123456789,' in answer.content
    assert isinstance(row["total_value"], float)


async def test_a_portfolio_needs_a_name(gateway: Any) -> None:
    for body in ({}, {"name": ""}, {"name": "  "}, {"name": 5}):
        answer = await gateway.http.post("/api/portfolios/", json=body, headers=gateway.token())
        assert answer.status_code == 400
        assert answer.json()["error"] == "Portfolio name is required"


async def test_a_portfolio_is_made_shown_and_deleted(gateway: Any) -> None:
    services = gateway.services
    services.says(
        "portfolio", "POST", "/portfolios", {**PORTFOLIO, "transactions": None, "transaction_count": 0}, 201
    )
    made = await gateway.http.post(
        "/api/portfolios", json={"name": "Main", "colour": "red"}, headers=gateway.token()
    )
    assert (made.status_code, made.json()["transactions"]) == (201, [])
    assert orjson.loads(services.calls[-1]["content"]) == {"name": "Main"}
    services.says("portfolio", "GET", "/portfolios/3", PORTFOLIO)
    assert (await gateway.http.get("/api/portfolios/3/", headers=gateway.token())).json()["id"] == 3
    services.says("portfolio", "DELETE", "/portfolios/3", {"id": 3, "deleted": True})
    gone = await gateway.http.delete("/api/portfolios/3/", headers=gateway.token())
    assert (gone.status_code, gone.json()) == (200, {"message": "Portfolio deleted"})


async def test_what_is_missing_is_said_in_the_seeds_words(gateway: Any) -> None:
    for path in ("/portfolios/9", "/portfolios/9/transactions", "/portfolios/9/holdings"):
        gateway.services.says("portfolio", "GET", path, NOT_FOUND, 404)
    for path in ("/api/portfolios/9/", "/api/portfolios/9/transactions/", "/api/portfolios/9/analytics/"):
        answer = await gateway.http.get(path, headers=gateway.token())
        assert (answer.status_code, answer.json()["error"]) == (404, "Portfolio not found"), path
    gateway.services.says("portfolio", "DELETE", "/portfolios/9/transactions/1", NOT_FOUND, 404)
    answer = await gateway.http.delete("/api/portfolios/9/transactions/1/", headers=gateway.token())
    assert answer.json()["error"] == "Transaction not found"


@pytest.mark.parametrize(("amount", "sent"), [(0.1, "0.1"), ("0.30", "0.30"), (2, "2"), (1e-8, "0.00000001")])
async def test_a_transaction_keeps_every_digit(gateway: Any, amount: Any, sent: str) -> None:
    gateway.price("BTC-USD", "1")
    gateway.services.says("portfolio", "POST", "/portfolios/3/transactions", TX, 201)
    body = {"coin_id": "bitcoin", "coin_name": "Bitcoin", "coin_symbol": "btc", "amount": amount, "price_usd": 65000.5,
            "transaction_type": "buy", "foo": 1}  # fmt: skip
    answer = await gateway.http.post("/api/portfolios/3/transactions/", json=body, headers=gateway.token())
    assert answer.status_code == 201
    told = orjson.loads(gateway.services.calls[-1]["content"])
    assert (told["quantity"], told["price"], told["type"], told["asset"]) == (
        sent,
        "65000.5",
        "buy",
        "bitcoin",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"amount": None},
        {"amount": "x"},
        {"amount": -1},
        {"coin_id": ""},
        {"transaction_type": "gift"},
        {"price_usd": True},
    ],
)
async def test_bad_transactions_are_refused_with_a_text(gateway: Any, change: dict[str, Any]) -> None:
    body = {"coin_id": "bitcoin", "amount": 1, "price_usd": 1, "transaction_type": "buy", **change}
    answer = await gateway.http.post("/api/portfolios/3/transactions/", json=body, headers=gateway.token())
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_analytics_have_the_seeds_shape(gateway: Any) -> None:
    best = {"asset": "BTC", "coin_id": "bitcoin", "coin_name": "Bitcoin", "coin_symbol": "btc", "profit_loss_percentage": "10.5",
            "profit_loss": "100"}  # fmt: skip
    holdings = {
        "holdings": [{"asset": "BTC", "coin_id": "bitcoin", "coin_name": "Bitcoin", "allocation_pct": "100"}],
        "totals": {"value": "1100", "cost": "1000", "unrealised_pnl": "100", "unrealised_pnl_pct": "10"},
        "best_performer": best, "worst_performer": None, "complete": True,
    }  # fmt: skip
    gateway.services.says("portfolio", "GET", "/portfolios/3/holdings", holdings)
    gateway.services.says("portfolio", "GET", "/portfolios/3", PORTFOLIO)
    body = (await gateway.http.get("/api/portfolios/3/analytics/", headers=gateway.token())).json()
    metrics = body["metrics"]
    assert (metrics["total_value"], metrics["total_cost"], metrics["total_profit_loss"]) == (1100, 1000, 100)
    assert metrics["asset_allocation"] == {"Bitcoin": 100}
    assert metrics["best_performer"]["profit_loss_percentage"] == 10.5
    assert metrics["worst_performer"] is None
    assert body["debug"] == {"transaction_count": 1, "coin_ids": ["bitcoin"]}


async def test_coins_are_searched_and_priced(gateway: Any) -> None:
    coin = {
        "id": "bitcoin",
        "name": "Bitcoin",
        "symbol": "btc",
        "thumb": None,
        "market_cap_rank": 1,
        "extra": 1,
    }
    gateway.services.says("indicators", "GET", "/coins/search", {"coins": [coin]})
    found = (await gateway.http.get("/api/coins/search/?q=bit")).json()
    assert found == {
        "coins": [{key: coin[key] for key in ("id", "name", "symbol", "thumb", "market_cap_rank")}]
    }
    price = {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "current_price": "65000.10", "price_change_24h": None,
             "price_change_percentage_24h": "1.5", "market_cap": "1300000000000", "volume_24h": "5", "last_updated": 1_700_000_000_000}  # fmt: skip
    gateway.services.says(
        "indicators", "GET", "/coins", {"prices": {"bitcoin": price}, "unknown": ["nothing"]}
    )
    gateway.services.says("ingestor", "PUT", "/wanted", {})
    answer = await gateway.http.get("/api/coins/prices/?ids=bitcoin,nothing")
    row = answer.json()["prices"]["bitcoin"]
    assert row["current_price"] == 65000.1
    assert row["last_updated"] == "2023-11-14T22:13:20.000Z"
    assert orjson.loads(gateway.services.calls[-1]["content"])["coin_ids"] == ["nothing"]


@pytest.mark.parametrize("path", ["/ws/crypto/", "/ws/prices/"])
async def test_the_first_dialect(gateway: Any, listen: Any, path: str) -> None:
    gateway.price("BTC-USD", "65000.5")
    gateway.price("ETH-USD", "3000")
    async with gateway.ws(path) as ws:
        hello = await listen(ws)
        assert (hello["type"], hello["status"]) == ("connection", "success")
        assert hello["message"]
        first = await listen(ws)
        assert first["type"] == "price_update"
        assert first["data"].keys() == {"bitcoin", "ethereum"}
        assert first["data"]["bitcoin"]["usd"] == 65000.5
        assert {"usd", "usd_24h_change", "last_updated_at"} <= first["data"]["bitcoin"].keys()
        await ws.send(json.dumps({"type": "subscribe", "coins": ["bitcoin", "ethereum"]}))
        assert await listen(ws) == {
            "type": "subscription",
            "message": "Subscribed to: bitcoin, ethereum",
            "coins": ["bitcoin", "ethereum"],
        }
        assert (await listen(ws))["type"] == "price_update"
        await ws.send(json.dumps({"type": "ping", "timestamp": 123}))
        assert await listen(ws) == {"type": "pong", "timestamp": 123}


async def test_the_front_ends_dialect(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "65000.5")
    async with gateway.ws("/ws/prices/") as ws:
        await listen(ws, "price_update")
        await ws.send(json.dumps({"action": "subscribe", "coin_ids": ["bitcoin"]}))
        assert (await listen(ws))["coins"] == ["bitcoin"]
        await listen(ws, "price_update")
        await ws.send(json.dumps({"action": "unsubscribe", "coin_ids": list(seed.DEFAULT_COINS)}))
        await listen(ws, "unsubscription")
        gateway.price("BTC-USD", "1", seq=2)
        gateway.seeds.tick()
        await ws.send(json.dumps({"action": "ping", "timestamp": "t"}))
        assert await listen(ws) == {"type": "pong", "timestamp": "t"}


async def test_updates_on_change_at_most_once_a_second_and_every_30_s(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1")
    async with gateway.ws("/ws/crypto/") as ws:
        await listen(ws, "price_update")
        assert gateway.seeds.tick() == 0
        gateway.price("BTC-USD", "2", seq=2)
        gateway.price("BTC-USD", "3", seq=3)
        assert gateway.seeds.tick() == 1
        assert (await listen(ws, "price_update"))["data"]["bitcoin"]["usd"] == 3
        assert gateway.seeds.tick() == 0
        gateway.clock.advance(29)
        assert gateway.seeds.tick() == 0
        gateway.clock.advance(2)
        assert gateway.seeds.tick() == 1


async def test_bad_input_is_an_error_and_the_socket_stays_open(gateway: Any, listen: Any) -> None:
    async with gateway.ws("/ws/crypto/") as ws:
        await listen(ws, "price_update")
        for frame in (
            "{",
            "[]",
            "5",
            "{}",
            '{"type":"fly"}',
            '{"type":"subscribe"}',
            '{"type":"subscribe","coins":[1]}',
        ):
            await ws.send(frame)
            message = await listen(ws)
            assert message["type"] == "error", frame
            assert message["message"]
        await asyncio.sleep(0.2)
        await ws.send(json.dumps({"type": "ping", "timestamp": 1}))
        assert (await listen(ws))["type"] == "pong"


def test_numbers_go_from_text_to_json_without_a_float() -> None:
    assert orjson.dumps(seed.number("0.10000000000000000000001")) == b"0.10000000000000000000001"
    assert seed.number(None) is None
    assert seed.amount({"amount": seed.read_body(b'{"a":0.1000000000000000000000001}')["a"]}, "amount") == (
        "0.1000000000000000000000001"
    )
