"""How fast the books are, on the real servers: a write that replays everything, a read, a long series."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

COLUMNS = (
    "timestamp,type,asset,quantity,price,currency,counter_asset,counter_quantity,fee,fee_asset,account,note"
)


async def a_portfolio(client: Any) -> int:
    return int((await client.post("/portfolios", content='{"name":"fast"}')).json()["id"])


async def load(client: Any, number: int, rows: list[str]) -> None:
    body = (COLUMNS + "\n" + "\n".join(rows)).encode()
    done = await client.post(
        f"/portfolios/{number}/transactions/import", content=body, params={"commit": "true"}
    )
    assert done.json()["recorded"] == len(rows), done.text[:500]


@pytest.mark.slow
async def test_a_write_that_replays_ten_thousand_transactions(service: Any) -> None:
    await service.price("BTC", "300")
    alice = service.as_user()
    number = await a_portfolio(alice)
    start = datetime(2022, 1, 1, tzinfo=UTC)
    rows = []
    for n in range(10_000):
        at = (start + timedelta(hours=n)).isoformat()
        rows.append(
            f"{at},sell,BTC,0.012,{30000 + n % 977}.25,USD,,,0.36,USD,main," if n % 3 == 2
            else f"{at},buy,BTC,0.01,{30000 + n % 991}.75,USD,,,0.3,USD,main,"
        )  # fmt: skip
    await load(alice, number, rows)
    figures: dict[str, list[float]] = {"first": [], "last": []}
    for n in range(7):
        for where, at in (("first", "2021-01-01T00:00:00Z"), ("last", f"2024-06-0{n + 1}T00:00:00Z")):
            body = {"type": "buy", "asset": "BTC", "quantity": "1", "price": "100", "timestamp": at}
            began = time.perf_counter()
            made = await alice.post(f"/portfolios/{number}/transactions", content=json.dumps(body))
            figures[where].append((time.perf_counter() - began) * 1000)
            assert made.status_code == 201
    first, last = sorted(figures["first"])[3], sorted(figures["last"])[3]
    print(f"write that replays 10,000: {first:.1f} ms; at the end of the book: {last:.1f} ms (medians of 7)")
    assert first < 3_000  # a busy machine; the order of magnitude is the guard
    assert last < 1_000


@pytest.mark.slow
async def test_reading_fifty_assets_and_five_years(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    today = int(time.time()) // 86_400
    rows = []
    for asset in range(50):
        name = f"A{asset}"
        await service.price(name, "10")
        service.upstream.daily[f"{name}-USD"] = {
            today - d: str(5 + (d * 7 + asset) % 11) for d in range(1, 1826)
        }
        for n in range(20):
            at = datetime.fromtimestamp((today - 1820 + n * 90) * 86_400, UTC).isoformat()
            rows.append(f"{at},buy,{name},1.5,7.25,USD,,,0.1,USD,main,")
    await load(alice, number, rows)
    holdings = await _median(alice, f"/portfolios/{number}/holdings")
    await alice.get(f"/portfolios/{number}/history")
    history = await _median(alice, f"/portfolios/{number}/history")
    performance = await _median(alice, f"/portfolios/{number}/performance")
    print(
        f"50 assets: holdings {holdings:.1f} ms; 5 years daily: history {history:.1f} ms, performance {performance:.1f} ms"
    )
    assert holdings < 1_000
    assert history < 3_000


async def _median(client: Any, path: str) -> float:
    times = []
    for _ in range(7):
        began = time.perf_counter()
        found = await client.get(path)
        times.append((time.perf_counter() - began) * 1000)
        assert found.status_code == 200, found.text
    return sorted(times)[3]
