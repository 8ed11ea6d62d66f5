"""The main road over HTTP: entries, portfolios, transactions, holdings, editing, refusals."""

from __future__ import annotations

import json
from typing import Any


async def test_entry_and_default_portfolio(service: Any) -> None:
    await service.price("BTC", "60000", change="10")
    alice = service.as_user("alice")
    made = await alice.post("/portfolio", content=b'{"symbol":"BTC","quantity":0.5,"price":"50000","fee":"5"}')
    assert made.status_code == 201, made.text
    assert made.json()["symbol"] == "BTC-USD"
    assert made.json()["quantity"] == "0.5"
    read = await alice.get("/portfolio")
    assert read.status_code == 200, read.text
    body = read.json()
    holding = body["holdings"][0]
    assert holding["symbol"] == "BTC-USD"
    assert holding["average_cost"] == "50010"
    assert holding["average_price"] == "50000"
    assert holding["value"] == "30000"
    assert holding["unrealised_pnl"] == "4995"
    assert body["totals"]["value"] == "30000"
    assert body["complete"] is True
    assert read.headers["etag"] == '"v2"'
