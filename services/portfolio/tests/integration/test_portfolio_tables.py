"""One book through everything at once, against a table worked out by hand.

Base EUR, money kept, lots per account; a coin-to-coin trade, a fee in a third coin, closes in dollars with a rate that moves.

| time | what | EUR a | EUR b | BTC a | BTC b | ETH a | BNB a |
|---|---|---|---|---|---|---|---|
| day 0 | deposits of 1000 and 500 | 1000 | 500 | | | | |
| day 0 | 2 BTC at 100, fee 1 | 799 | | 2 for 201 | | | |
| day 0 | 1 BNB at 10 | 789 | | | | | 1 for 10 |
| day 0 | 1 BTC at 110 | | 390 | | 1 for 110 | | |
| day 1 | 1 BTC into 5 ETH, worth 120, fee 0.1 BNB worth 1 | | | 1 for 100.5 | | 5 | 0.9 for 9 |
| day 2 | 1 BTC of b at 160 | | 550 | | - | | |
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

DAY_MS = 86_400_000


def at(day: int, hour: int) -> str:
    return (datetime(1970, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)).isoformat()


async def a_book(service: Any, client: Any, start: int) -> int:
    closes = {
        "EUR": ("1.25", "1.25", "1.25", "1", "1.25"),
        "BTC": ("125", "125", "150", "160", "200"),
        "ETH": ("20", "25", "30", "32", "25"),
        "BNB": ("12.5", "12.5", "12.5", "12.5", "12.5"),
    }
    for asset, prices in closes.items():
        service.upstream.daily[f"{asset}-USD"] = {start - 1 + n: price for n, price in enumerate(prices)}
    for asset, price in (("EUR", "1.25"), ("BTC", "250"), ("ETH", "50"), ("BNB", "12.5")):
        await service.price(asset, price)
    fields = {"name": "table", "base_currency": "EUR", "cash_mode": "explicit", "lot_scope": "account"}
    number = int((await client.post("/portfolios", content=json.dumps(fields))).json()["id"])
    rows = [
        {"type": "deposit", "asset": "EUR", "quantity": "1000", "account": "a", "timestamp": at(start, 8)},
        {"type": "deposit", "asset": "EUR", "quantity": "500", "account": "b", "timestamp": at(start, 8)},
        {"type": "buy", "asset": "BTC", "quantity": "2", "price": "100", "currency": "EUR", "fee": "1", "fee_asset": "EUR", "account": "a", "timestamp": at(start, 9)},
        {"type": "buy", "asset": "BNB", "quantity": "1", "price": "10", "currency": "EUR", "account": "a", "timestamp": at(start, 9)},
        {"type": "buy", "asset": "BTC", "quantity": "1", "price": "110", "currency": "EUR", "account": "b", "timestamp": at(start, 10)},
        {"type": "trade", "asset": "BTC", "quantity": "1", "counter_asset": "ETH", "counter_quantity": "5", "total": "120", "currency": "EUR",
         "fee": "0.1", "fee_asset": "BNB", "fee_price": "10", "account": "a", "timestamp": at(start + 1, 12)},
        {"type": "sell", "asset": "BTC", "quantity": "1", "price": "160", "currency": "EUR", "account": "b", "timestamp": at(start + 2, 12)},
    ]  # fmt: skip
    for row in rows:
        made = await client.post(f"/portfolios/{number}/transactions", content=json.dumps(row))
        assert made.status_code == 201, (row, made.text)
    return number


async def test_a_book_in_euro_with_money_accounts_trades_and_fees(service: Any) -> None:
    start = int(time.time() * 1000) // DAY_MS - 4
    alice = service.as_user()
    number = await a_book(service, alice, start)
    path = f"/portfolios/{number}"

    now = (await alice.get(f"{path}/holdings")).json()
    held = {item["asset"]: (item["quantity"], item["price"], item["value"]) for item in now["holdings"]}
    assert held == {
        "BTC": ("1", "200", "200"),
        "ETH": ("5", "40", "200"),
        "BNB": ("0.9", "10", "9"),
        "EUR": ("1339", "1", "1339"),
    }
    totals = now["totals"]
    assert totals["value"] == "1748"
    # 1748 - 1500 paid in; of it 50 on the sale of b (its own lot, not the older one of a) and the trade's 19.5 less its fee
    assert totals["total_pnl"] == "248"
    gains = (await alice.get(f"{path}/realised")).json()["data"]
    sale = next(gain for gain in gains if gain["account"] == "b" and gain["asset"] == "BTC")
    assert (sale["cost"], sale["proceeds"], sale["gain"]) == ("110", "160", "50")
    fee = next(gain for gain in gains if gain["asset"] == "BNB")
    assert (fee["quantity"], fee["cost"], fee["proceeds"]) == ("0.1", "1", "1")
    lots = (await alice.get(f"{path}/lots")).json()["data"]
    costs = {
        (lot["asset"], lot["account"]): lot["cost_remaining"]
        for lot in lots
        if lot["asset"] in {"BTC", "BNB"}
    }
    assert costs == {("BTC", "a"): "100.5", ("BNB", "a"): "9"}

    moment = (start + 1) * DAY_MS + 6 * 3_600_000
    for asset, price in (("BTC", "150"), ("EUR", "1.25"), ("BNB", "12.5"), ("ETH", "30")):
        service.upstream.minutes[f"{asset}-USD", moment] = price
    past = (await alice.get(f"{path}/holdings", params={"as_of": str(moment)})).json()
    assert {item["asset"]: item["value"] for item in past["holdings"]} == {
        "EUR": "1179",
        "BTC": "360",
        "BNB": "10",
    }
    assert (past["totals"]["value"], past["totals"]["cost"]) == ("1549", "1500")

    found = (await alice.get(f"{path}/performance", params={"benchmark": "BTC:50,ETH:50"})).json()
    assert (found["net_flow"], found["end_value"], found["pnl"]) == ("1500", "1748", "248")
    assert found["twr"]["value"] == pytest.approx(1748 / 1500 - 1, rel=1e-12)
    # in euro: BTC 100 -> 200, ETH 16 -> 40
    assert found["benchmark"]["twr"]["value"] == pytest.approx(0.5 * 2 + 0.5 * 2.5 - 1, rel=1e-12)
    history = (await alice.get(f"{path}/history")).json()["data"]
    # day 1: BTC a 120, BTC b 120, ETH 5 x 24, BNB 9, EUR 1179; day 2: 160 + 160 + 11.25 + 1339
    assert [point["value"] for point in history] == ["1489", "1548", "1670.25", "1608", "1748"]
