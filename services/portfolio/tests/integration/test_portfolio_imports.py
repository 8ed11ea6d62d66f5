"""Files into the books over HTTP: preview, per-row verdicts, duplicates, the lossless round trip, long files."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import asyncpg

COLUMNS = (
    "timestamp,type,asset,quantity,price,currency,counter_asset,counter_quantity,fee,fee_asset,account,note"
)


async def a_portfolio(client: Any, **fields: Any) -> int:
    made = await client.post("/portfolios", content=json.dumps({"name": "Main", **fields}))
    return int(made.json()["id"])


async def send(client: Any, number: int, text: str | bytes, **query: str) -> Any:
    body = text.encode() if isinstance(text, str) else text
    return await client.post(f"/portfolios/{number}/transactions/import", content=body, params=query)


FILE = f"""{COLUMNS}
2024-01-01T00:00:00Z,buy,BTC,2,100,USD,,,1,USD,cold,first
2024-01-02T00:00:00Z,sell,BTC,5,200,USD,,,,,cold,too much
2024-01-03T00:00:00Z,sell,BTC,1,200,USD,,,,,cold,=SUM(A1)
2024-01-04T00:00:00Z,buy,BTC,one,100,USD,,,,,cold,
2024-01-05T00:00:00Z,buy,UNLISTED,3,1,USD,,,,,cold,'quoted
"""


async def test_preview_then_commit_then_again_is_once(service: Any) -> None:
    await service.price("BTC", "300")
    alice = service.as_user()
    number = await a_portfolio(alice)
    preview = (await send(alice, number, FILE)).json()
    assert (preview["format"], preview["committed"], preview["ready"], preview["errors"]) == (
        "cryptopulse",
        False,
        3,
        2,
    )
    assert [(row["row"], row["code"]) for row in preview["rows"][:2]] == [(3, "oversold"), (5, "unreadable")]
    assert (await alice.get(f"/portfolios/{number}/transactions")).json()["data"] == []
    done = (await send(alice, number, FILE, commit="true")).json()
    assert (done["recorded"], done["errors"], done["version"]) == (3, 2, 2)
    held = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert {h["asset"]: h["quantity"] for h in held["holdings"]} == {"BTC": "1", "UNLISTED": "3"}
    again = (await send(alice, number, FILE, commit="true")).json()
    assert (again["recorded"], again["duplicates"]) == (0, 3)
    after = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert after["totals"] == held["totals"]


async def test_uncovered_sales_may_be_flagged(service: Any) -> None:
    await service.price("BTC", "300")
    alice = service.as_user()
    number = await a_portfolio(alice)
    done = (await send(alice, number, FILE, commit="true", oversell="flag")).json()
    assert (done["recorded"], done["errors"]) == (4, 1)
    held = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert held["complete"] is False
    assert [(m["found"], m["missing"]) for m in held["missing"]] == [("2", "3"), ("0", "1")]


async def test_export_and_import_is_lossless_and_safe_in_a_spreadsheet(service: Any) -> None:
    await service.price("BTC", "300")
    await service.price("ETH", "30")
    await service.price("BNB", "3")
    alice = service.as_user()
    number = await a_portfolio(alice)
    rows: list[dict[str, Any]] = [
        {"type": "buy", "asset": "BTC", "quantity": "2.000000000000000001", "price": "100.123456789012345678901234", "fee": "0.5", "fee_asset": "USD",
         "note": "=cmd|' /C calc'!A0", "timestamp": "2024-01-01T00:00:00.123456Z", "external_id": "+x1"},
        {"type": "buy", "asset": "BNB", "quantity": "5", "total": "15", "account": "@home", "timestamp": "2024-01-02T00:00:00Z"},
        {"type": "trade", "asset": "BTC", "quantity": "0.5", "counter_asset": "ETH", "counter_quantity": "5", "total": "150",
         "currency": "USD", "fee": "0.1", "fee_asset": "BNB", "fee_price": "3.3", "timestamp": "2024-01-03T00:00:00Z", "note": "'-quoted\nlines, \"too\""},
        {"type": "transfer", "asset": "BTC", "quantity": "0.1", "account": "main", "to_account": "cold", "fee": "0.01", "fee_asset": "BTC",
         "fee_price": "100", "timestamp": "2024-01-04T00:00:00Z"},
        {"type": "transfer_in", "asset": "ETH", "quantity": "1", "price": "30", "cost_basis": "7", "acquired_at": "2020-01-01T00:00:00Z", "timestamp": "2024-01-05T00:00:00Z"},
        {"type": "staking", "asset": "ETH", "quantity": "0.001", "price": "30", "timestamp": "2024-01-06T00:00:00Z"},
        {"type": "split", "asset": "BNB", "quantity": "1", "counter_quantity": "10", "timestamp": "2024-01-07T00:00:00Z"},
        {"type": "rename", "asset": "BNB", "counter_asset": "BNBX", "timestamp": "2024-01-08T00:00:00Z"},
        {"type": "gift", "asset": "ETH", "quantity": "0.5", "price": "30", "timestamp": "2024-01-09T00:00:00Z"},
        {"type": "lost", "asset": "ETH", "quantity": "0.5", "timestamp": "2024-01-10T00:00:00Z"},
        {"type": "fee", "asset": "ETH", "quantity": "0.01", "price": "30", "timestamp": "2024-01-11T00:00:00Z"},
    ]  # fmt: skip
    for row in rows:
        made = await alice.post(f"/portfolios/{number}/transactions", content=json.dumps(row))
        assert made.status_code == 201, (row, made.text)
    exported = (await alice.get(f"/portfolios/{number}/export")).text
    cells = [cell for line in csv.reader(io.StringIO(exported)) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    twin = await a_portfolio(alice)
    imported = (await send(alice, twin, exported, commit="true")).json()
    assert (imported["recorded"], imported["errors"]) == (len(rows), 0), imported["rows"]
    again = (await alice.get(f"/portfolios/{twin}/export")).text
    assert _without_ids(again) == _without_ids(exported)
    ours, theirs = [(await alice.get(f"/portfolios/{n}/holdings")).json() for n in (number, twin)]
    assert ours["totals"] == theirs["totals"]
    assert ours["snapshot_id"] == theirs["snapshot_id"]
    back = (await send(alice, number, exported, commit="true")).json()
    assert (back["recorded"], back["duplicates"]) == (0, len(rows))
    as_json = (await alice.get(f"/portfolios/{number}/export", params={"format": "json"})).json()
    assert len(as_json["data"]) == len(rows)


def _without_ids(text: str) -> list[dict[str, str]]:
    return [
        {k: v for k, v in row.items() if k != "id"} for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


async def test_a_file_of_another_user_or_of_no_kind_is_refused(service: Any) -> None:
    alice, mallory = service.as_user("alice"), service.as_user("mallory")
    number = await a_portfolio(alice)
    assert (await send(mallory, number, FILE, commit="true")).status_code == 404
    refused = await send(alice, number, b"\x89PNG\r\n\x00")
    assert (refused.status_code, refused.json()["code"]) == (422, "not-text")
    assert (await send(alice, number, "a,b\n1,2\n")).json()["code"] == "unknown-format"


def long_file(count: int) -> str:
    rows = [
        f"2024-01-{1 + n % 28:02d}T{n // 1200 % 24:02d}:{n // 20 % 60:02d}:{n % 20:02d}Z,buy,BTC,0.001,{100 + n % 50},USD,,,,,a{n % 3},"
        for n in range(count)
    ]
    return COLUMNS + "\n" + "\n".join(rows)


async def finished(client: Any, number: int, job: int) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            found = (await client.get(f"/portfolios/{number}/imports/{job}")).json()
            if found["state"] in {"done", "failed"}:
                return dict(found)
            await asyncio.sleep(0.1)


async def test_a_long_file_is_imported_in_the_background_as_a_whole(service: Any) -> None:
    await service.price("BTC", "300")
    alice, mallory = service.as_user(), service.as_user("mallory")
    number = await a_portfolio(alice)
    text = long_file(6_000) + "\n2024-02-01T00:00:00Z,sell,BTC,7,100,USD,,,,,a0,"
    taken = await send(alice, number, text, commit="true")
    assert taken.status_code == 202, taken.text
    job = taken.json()
    assert (job["state"], job["result"], job["problem"]) == ("waiting", None, None)
    assert (await mallory.get(f"/portfolios/{number}/imports/{job['id']}")).status_code == 404
    other = await a_portfolio(alice)
    assert (await alice.get(f"/portfolios/{other}/imports/{job['id']}")).status_code == 404
    done = await finished(alice, number, job["id"])
    assert done["state"] == "done", done
    result = done["result"]
    assert (result["recorded"], result["errors"], result["truncated"], len(result["rows"])) == (
        6_000,
        1,
        True,
        1_000,
    )
    assert result["rows"][0]["code"] == "oversold"
    held = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert held["holdings"][0]["quantity"] == "6"
    again = await finished(alice, number, (await send(alice, number, text, commit="true")).json()["id"])
    assert (again["result"]["recorded"], again["result"]["duplicates"]) == (0, 6_000)


async def test_a_long_file_of_no_kind_fails_with_its_reason(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    taken = await send(alice, number, "a,b\n" + "1,2\n" * 100_000, commit="true")
    assert taken.status_code == 202
    failed = await finished(alice, number, taken.json()["id"])
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "unknown-format")


async def test_an_import_whose_process_died_reads_as_interrupted(service: Any, postgres_db: str) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    connection = await asyncpg.connect(postgres_db)
    try:
        job = await connection.fetchval(
            "INSERT INTO portfolio.import_job (portfolio_id, owner_id, state, updated_at) "
            "VALUES ($1, 'alice', 'running', now() - interval '2 minutes') RETURNING id",
            number,
        )
    finally:
        await connection.close()
    found = (await alice.get(f"/portfolios/{number}/imports/{job}")).json()
    assert (found["state"], found["problem"]["code"]) == ("failed", "interrupted")
