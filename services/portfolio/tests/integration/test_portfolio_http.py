"""The main road over HTTP: entries, portfolios, transactions, holdings, editing, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cryptopulse.common.contracts.http.portfolio import ROUTES
from cryptopulse.common.contracts.http.spec import RouteSpec


async def test_entry_and_default_portfolio(service: Any) -> None:
    await service.price("BTC", "60000", change="10")
    alice = service.as_user("alice")
    made = await alice.post(
        "/portfolio", content=b'{"symbol":"BTC","quantity":0.5,"price":"50000","fee":"5"}'
    )
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


async def a_portfolio(client: Any, **fields: Any) -> int:
    made = await client.post("/portfolios", content=json.dumps({"name": "Main", **fields}))
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


async def add(client: Any, number: int, **fields: Any) -> Any:
    body = {
        "type": "buy",
        "asset": "BTC",
        "quantity": "1",
        "price": "100",
        "timestamp": "2024-01-01T00:00:00Z",
    }
    return await client.post(f"/portfolios/{number}/transactions", content=json.dumps({**body, **fields}))


async def test_numbers_are_refused_with_the_reason_and_digits_are_never_rounded(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    as_number = await add(alice, number, quantity=1)
    assert as_number.status_code == 422
    assert as_number.json()["errors"][0]["pointer"] == "/quantity"
    assert "JSON string" in as_number.json()["errors"][0]["detail"]
    too_fine = await add(alice, number, quantity="0." + "1" * 25)
    assert too_fine.status_code == 422
    assert "never rounded" in too_fine.json()["detail"]
    wei = await add(
        alice, number, asset="ETH", quantity="0.000000000000000001", price="1.000000000000000000000001"
    )
    assert wei.status_code == 201, wei.text
    assert wei.json()["quantity"] == "0.000000000000000001"
    meme = await add(alice, number, asset="ETH", quantity="1000000000000000.5", price="0.000000000000000001")
    assert meme.json()["total"] == "0.0010000000000000005"
    over = await add(alice, number, asset="ETH", quantity="9" * 30, price="9" * 30)
    assert over.status_code == 422
    assert over.json()["code"] == "out-of-range"


async def test_a_sale_of_more_than_is_held_is_refused_and_leaves_nothing(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    assert (await add(alice, number)).status_code == 201
    refused = await add(alice, number, type="sell", quantity="1.5", timestamp="2024-02-01T00:00:00Z")
    assert refused.status_code == 422
    assert refused.json()["code"] == "oversold"
    assert "1.5 BTC" in refused.json()["detail"]
    assert "2024-02-01T00:00:00Z" in refused.json()["detail"]
    listed = (await alice.get(f"/portfolios/{number}/transactions")).json()["data"]
    assert len(listed) == 1
    assert (await alice.get(f"/portfolios/{number}")).json()["version"] == 2


async def test_a_back_dated_sale_that_breaks_a_later_one_names_the_later_one(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number, quantity="2")
    late = await add(alice, number, type="sell", quantity="2", timestamp="2024-03-01T00:00:00Z")
    refused = await add(alice, number, type="sell", quantity="1", timestamp="2024-02-01T00:00:00Z")
    assert refused.status_code == 422
    assert f"Transaction {late.json()['id']} " in refused.json()["detail"]


async def test_edit_and_void_replay_the_books(service: Any) -> None:
    await service.price("BTC", "200")
    alice = service.as_user()
    number = await a_portfolio(alice)
    bought = (await add(alice, number, quantity="2")).json()
    await add(alice, number, type="sell", quantity="1", price="150", timestamp="2024-02-01T00:00:00Z")
    path = f"/portfolios/{number}/transactions/{bought['id']}"
    edited = await alice.patch(path, content='{"price":"120"}')
    assert edited.status_code == 200, edited.text
    assert edited.json()["revision"] == 2
    assert edited.json()["total"] == "240"
    holding = (await alice.get(f"/portfolios/{number}/holdings")).json()["holdings"][0]
    assert holding["realised_pnl"] == "30"
    assert holding["cost"] == "120"
    refused = await alice.delete(path)
    assert refused.status_code == 422
    too_small = await alice.patch(path, content='{"quantity":"0.5"}')
    assert too_small.status_code == 422
    revisions = (await alice.get(f"{path}/revisions")).json()["data"]
    assert [item["price"] for item in revisions] == ["100", "120"]


async def test_a_void_takes_the_transaction_out_and_keeps_its_history(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    bought = (await add(alice, number)).json()
    path = f"/portfolios/{number}/transactions/{bought['id']}"
    assert (await alice.delete(path)).json() == {"id": bought["id"], "deleted": True}
    assert (await alice.get(path)).status_code == 404
    assert [r["voided"] for r in (await alice.get(f"{path}/revisions")).json()["data"]] == [False, True]
    holdings = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert holdings["holdings"] == []
    assert (await alice.get(f"/portfolios/{number}")).json()["transaction_count"] == 0


async def test_versions_and_idempotency_keys(service: Any) -> None:
    alice = service.as_user()
    number = await a_portfolio(alice)
    path = f"/portfolios/{number}/transactions"
    body = json.dumps({"type": "buy", "asset": "BTC", "quantity": "1", "price": "1"})
    first = await alice.post(path, content=body, headers={"Idempotency-Key": '"k1"', "If-Match": '"v1"'})
    again = await alice.post(path, content=body, headers={"Idempotency-Key": '"k1"', "If-Match": '"v1"'})
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await alice.post(path, content=body.replace('"1"', '"2"'), headers={"Idempotency-Key": '"k1"'})
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency-key-reused"
    old = await alice.post(path, content=body, headers={"If-Match": '"v1"'})
    assert old.status_code == 412
    assert len((await alice.get(path)).json()["data"]) == 1


async def test_coins_by_id_share_the_position_of_their_symbol_and_namesakes_do_not(service: Any) -> None:
    await service.price("BTC", "100")
    await service.reference("obscure", "2")
    alice = service.as_user()
    number = await a_portfolio(alice)
    by_id = await add(
        alice, number, asset="bitcoin", coin_id="bitcoin", coin_name="Bitcoin", coin_symbol="btc"
    )
    assert by_id.json()["coin_name"] == "Bitcoin"
    await add(alice, number, asset="BTC", quantity="2")
    await add(alice, number, asset="batcat", coin_id="batcat", quantity="7")
    await add(alice, number, asset="obscure", quantity="10")
    unknown = await add(alice, number, asset="nosuchcoin")
    assert unknown.status_code == 422
    assert unknown.json()["code"] == "unknown-asset"
    body = (await alice.get(f"/portfolios/{number}/holdings")).json()
    held = {h["asset"]: h for h in body["holdings"]}
    assert held["BTC"]["quantity"] == "3"
    assert held["obscure"]["value"] == "20"
    assert held["batcat"]["value"] is None
    assert body["unpriced_assets"] == ["batcat"]
    assert body["complete"] is False
    assert body["totals"]["value"] == "320"
    assert {"obscure", "batcat", "bitcoin"} <= service.upstream.wanted


async def test_a_stale_price_is_null_and_named(service: Any) -> None:
    await service.price("BTC", "100", age_seconds=120)
    alice = service.as_user()
    number = await a_portfolio(alice)
    await add(alice, number)
    body = (await alice.get(f"/portfolios/{number}/holdings")).json()
    assert body["holdings"][0]["value"] is None
    assert body["stale_assets"][0]["asset"] == "BTC"
    assert body["stale_assets"][0]["age_s"] >= 119
    assert body["totals"]["value"] is None
    assert body["totals"]["complete"] is False


BODIES = {
    "update_portfolio": '{"name":"x"}',
    "create_transaction": '{"type":"buy","asset":"BTC","quantity":"1","price":"1"}',
    "update_transaction": '{"note":"x"}',
    "import_transactions": "timestamp,type,asset,quantity,price,currency,counter_asset,counter_quantity,fee,fee_asset,account,note\n"
    "2024-01-01T00:00:00Z,buy,BTC,1,1,USD,,,,,,",
}


@pytest.mark.parametrize(
    "spec", [s for s in ROUTES if "portfolio_id" in s.path], ids=lambda s: s.operation_id
)
async def test_another_users_ids_look_like_missing_ones(service: Any, spec: RouteSpec) -> None:
    """Every route that names a portfolio, and the things below it also under a portfolio of one's own."""
    alice, mallory = service.as_user("alice"), service.as_user("mallory")
    number = await a_portfolio(alice)
    own = await a_portfolio(mallory)
    ids = {"transaction_id": (await add(alice, number)).json()["id"], "job_id": 1}
    if "job_id" in spec.path:
        big = BODIES["import_transactions"] + "\n" * 300_000
        taken = await alice.post(f"/portfolios/{number}/transactions/import", content=big)
        ids["job_id"] = taken.json()["id"]
    query = {"commit": "true"} if spec.operation_id == "import_transactions" else {}
    content = BODIES.get(spec.operation_id)

    async def ask(client: Any, portfolio: int) -> Any:
        path = spec.path.format(portfolio_id=portfolio, **ids)
        return await client.request(spec.method, path, content=content, params=query)

    before = (await alice.get(f"/portfolios/{number}")).json()
    answers = []
    for portfolio in (number, 987654321):
        found = await ask(mallory, portfolio)
        assert found.status_code == 404, found.text
        answers.append({k: v for k, v in found.json().items() if k not in {"request_id", "instance"}})
    assert answers[0] == answers[1]
    if len(spec.parameters) > 1:
        assert (await ask(mallory, own)).status_code == 404
    assert (await alice.get(f"/portfolios/{number}")).json() == before
    assert [p["id"] for p in (await mallory.get("/portfolios")).json()["data"]] == [own]
    assert (await ask(alice, number)).status_code < 300


async def test_refusals_of_callers(service: Any) -> None:
    nobody = service.as_user(None, kind="anonymous")
    assert (await nobody.get("/portfolio")).status_code == 403
    reader = service.as_user("alice", scopes=("portfolio:read",))
    assert (await reader.get("/portfolios")).status_code == 200
    assert (await reader.post("/portfolios", content='{"name":"x"}')).status_code == 403
    assert (await reader.get("/portfolios", headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await reader.put("/watch", content='{"portfolio_ids":[1]}')).status_code == 403


async def test_cursors_walk_the_whole_list_and_belong_to_it(service: Any) -> None:
    alice, mallory = service.as_user("alice"), service.as_user("mallory")
    number = await a_portfolio(alice)
    made = [
        (await add(alice, number, timestamp=f"2024-01-0{day}T00:00:00Z")).json()["id"] for day in range(1, 6)
    ]
    seen, cursor = [], None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await alice.get(f"/portfolios/{number}/transactions", params=params)).json()
        seen += [item["id"] for item in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        stolen = await mallory.get(f"/portfolios/{number}/transactions", params={"cursor": cursor})
        assert stolen.status_code in {400, 404}
    assert seen == made[::-1]
