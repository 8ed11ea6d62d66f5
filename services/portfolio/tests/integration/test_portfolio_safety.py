"""Concurrent writers, kills between steps, and row-level security with the check in code removed."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import NotFound
from cryptopulse.portfolio.adapters.books import PostgresBooks, PostgresUnit
from cryptopulse.portfolio.application import replay
from cryptopulse.portfolio.application.ports import Filter

BUY = {"type": "buy", "asset": "BTC", "quantity": "1", "price": "100", "timestamp": "2024-01-01T00:00:00Z"}
TABLES = (
    "portfolio",
    "transaction_revision",
    "transaction_current",
    "leg",
    "asset",
    "position",
    "segment",
    "idempotency",
    "import_job",
)


async def a_book(client: Any) -> int:
    number = int((await client.post("/portfolios", content='{"name":"x"}')).json()["id"])
    made = await client.post(
        f"/portfolios/{number}/transactions", content=json.dumps(BUY), headers={"Idempotency-Key": "k"}
    )
    assert made.status_code == 201, made.text
    return number


async def test_fifty_writers_at_once_are_counted_once_each_or_refused(service: Any) -> None:
    await service.price("BTC", "100")
    alice = service.as_user()
    number = await a_book(alice)
    version = (await alice.get(f"/portfolios/{number}")).json()["version"]
    path = f"/portfolios/{number}/transactions"
    pinned = [
        alice.post(path, content=json.dumps(BUY), headers={"If-Match": f'"v{version}"'}) for _ in range(25)
    ]
    same = [alice.post(path, content=json.dumps(BUY), headers={"Idempotency-Key": "once"}) for _ in range(10)]
    free = [alice.post(path, content=json.dumps({**BUY, "quantity": "0.5"})) for _ in range(15)]
    answers = await asyncio.gather(*pinned, *same, *free)
    statuses = [a.status_code for a in answers]
    assert set(statuses[:25]) <= {201, 412}
    assert statuses[:25].count(201) <= 1
    assert set(statuses[25:35]) <= {201, 409}
    assert len({a.json()["id"] for a in answers[25:35] if a.status_code == 201}) == 1
    assert statuses[35:] == [201] * 15
    accepted = {a.json()["id"]: Decimal(a.json()["quantity"]) for a in answers if a.status_code == 201}
    held = (await alice.get(f"/portfolios/{number}/holdings")).json()["holdings"][0]
    assert Decimal(held["quantity"]) == 1 + sum(accepted.values())
    portfolio = (await alice.get(f"/portfolios/{number}")).json()
    assert portfolio["transaction_count"] == 1 + len(accepted)
    assert portfolio["version"] == version + len(accepted)


@pytest.mark.parametrize(
    "step",
    ["next_version", "add", "keep_coins", "replace_segments", "replace_positions", "announce", "keep_answer"],
)
async def test_a_write_that_dies_between_two_steps_leaves_nothing(
    service: Any, step: str, monkeypatch: Any
) -> None:
    await service.price("BTC", "100")
    alice = service.as_user()
    number = await a_book(alice)
    before = (await alice.get(f"/portfolios/{number}/holdings")).json()["totals"]
    path = f"/portfolios/{number}/transactions"
    whole = getattr(PostgresUnit, step)

    async def dies(self: Any, *args: Any, **more: Any) -> Any:
        await whole(self, *args, **more)
        # As by SIGKILL: the server sees the connection go without a word.
        self._db.terminate() if hasattr(self._db, "terminate") else None
        raise ConnectionResetError("killed")

    monkeypatch.setattr(PostgresUnit, step, dies)
    failed = await alice.post(path, content=json.dumps(BUY), headers={"Idempotency-Key": "k2"})
    assert failed.status_code == 503, failed.text
    monkeypatch.undo()
    assert (await alice.get(f"/portfolios/{number}/holdings")).json()["totals"] == before
    assert (await alice.get(f"/portfolios/{number}")).json()["version"] == 2
    again = await alice.post(path, content=json.dumps(BUY), headers={"Idempotency-Key": "k2"})
    assert again.status_code == 201
    assert (await alice.get(f"/portfolios/{number}")).json()["transaction_count"] == 2


async def test_row_level_security_holds_without_the_check_in_code(service: Any, postgres_db: str) -> None:
    alice = service.as_user("alice")
    number = await a_book(alice)
    long = await alice.post(f"/portfolios/{number}/transactions/import", content="x" * 300_000)
    assert long.status_code == 202, long.text
    database = Database(
        postgres_db, schema="portfolio", role="cryptopulse_portfolio", application_name="t", max_size=1
    )
    await database.start()
    try:
        async with database.connection() as connection:
            owned = await connection.fetch(
                "SELECT c.relname, c.relrowsecurity FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
                "WHERE c.relnamespace = 'portfolio'::regnamespace AND c.relkind = 'r' AND a.attname = 'owner_id'"
            )
            assert {row["relname"]: row["relrowsecurity"] for row in owned} == dict.fromkeys(TABLES, True)
        for user, rows in (("alice", True), ("mallory", False), (None, False), ("", False)):
            async with database.transaction(user) as connection:
                for table in TABLES:
                    count = await connection.fetchval(f"SELECT count(*) FROM {table}")
                    assert (count > 0) is rows, (user, table, count)
        async with (
            database.connection() as connection
        ):  # used before by alice: the setting is empty now, not absent
            assert await connection.fetchval("SELECT current_setting('app.user_id', true)") == ""
            assert await connection.fetchval("SELECT count(*) FROM portfolio") == 0
            role = await connection.fetchrow(
                "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
            )
            assert (role["rolsuper"], role["rolbypassrls"]) == (False, False)
            owner = await connection.fetchval(
                "SELECT tableowner FROM pg_tables WHERE tablename = 'portfolio'"
            )
            assert owner != "cryptopulse_portfolio"
        async with database.transaction("mallory") as connection:
            touched = await connection.execute("UPDATE portfolio SET name = 'stolen' WHERE id = $1", number)
            assert touched == "UPDATE 0"
        with pytest.raises(Exception, match="row-level security"):
            async with database.transaction("mallory") as connection:
                await connection.execute(
                    "INSERT INTO asset (portfolio_id, asset, owner_id) VALUES ($1, 'X', 'alice')", number
                )
    finally:
        await database.close()


async def test_a_unit_that_forgets_its_owner_still_sees_nothing_of_others(
    service: Any, postgres_db: str
) -> None:
    alice = service.as_user("alice")
    number = await a_book(alice)
    database = Database(
        postgres_db, schema="portfolio", role="cryptopulse_portfolio", application_name="t", max_size=1
    )
    await database.start()
    try:
        async with PostgresBooks(database).unit("mallory") as unit:
            unit._owner = "alice"  # the condition in code, removed
            assert await unit.portfolios() == []
            assert await unit.positions(number) == []
            assert await unit.segments(number) == []
            assert await unit.postings(number, ["BTC"], None) == []
            assert await unit.listed(number, Filter(10)) == []
            assert [item async for item in unit.all_recorded(number)] == []
            assert await unit.coins(number) == []
            with pytest.raises(NotFound):
                await unit.next_version(number, None)
    finally:
        await database.close()


async def test_the_ledger_is_append_only_for_the_service(service: Any, postgres_db: str) -> None:
    alice = service.as_user("alice")
    await a_book(alice)
    database = Database(
        postgres_db, schema="portfolio", role="cryptopulse_portfolio", application_name="t", max_size=1
    )
    await database.start()
    try:
        for statement in ("UPDATE transaction_revision SET quantity = 9", "DELETE FROM transaction_revision"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                async with database.transaction("alice") as connection:
                    await connection.execute(statement)
    finally:
        await database.close()


async def test_a_write_replays_from_the_touched_point_and_a_read_never_does(
    service: Any, monkeypatch: Any
) -> None:
    await service.price("BTC", "100")
    alice = service.as_user()
    number = int((await alice.post("/portfolios", content='{"name":"x"}')).json()["id"])
    head = "timestamp,type,asset,quantity,price,currency,counter_asset,fee_asset,account"
    rows = [f"2024-01-01T{n // 60:02d}:{n % 60:02d}:00Z,buy,BTC,1,{100 + n},USD,,,main" for n in range(1_200)]
    path = f"/portfolios/{number}"
    sent = await alice.post(
        f"{path}/transactions/import", content="\n".join([head, *rows]), params={"commit": "true"}
    )
    assert sent.json()["recorded"] == 1_200, sent.text
    replayed: list[int] = []
    whole = replay.replayed

    def counted(book: Any, postings: Any, from_no: int) -> Any:
        replayed.append(len(postings))
        return whole(book, postings, from_no)

    monkeypatch.setattr(replay, "replayed", counted)
    for at, most in (
        ("2024-02-01T00:00:00Z", 500),
        ("2024-01-01T18:20:30Z", 250),
        ("2023-01-01T00:00:00Z", 1_203),
    ):
        made = await alice.post(f"{path}/transactions", content=json.dumps({**BUY, "timestamp": at}))
        assert made.status_code == 201, made.text
        assert replayed.pop() <= most
    assert replayed == []
    for name in ("holdings", "lots", "realised", "performance", "history", "export", "transactions"):
        assert (await alice.get(f"{path}/{name}")).status_code == 200
    assert (await alice.get("/portfolio")).status_code == 200
    assert replayed == []


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("field", ["note", "external_id", "account", "asset"])
async def test_a_text_that_cannot_be_kept_is_refused(service: Any, field: str, text: str) -> None:
    alice = service.as_user()
    number = await a_book(alice)
    made = await alice.post(
        f"/portfolios/{number}/transactions", content=json.dumps({**BUY, "custom_asset": True, field: text})
    )
    assert made.status_code == 422, made.text
    filtered = await alice.get(
        f"/portfolios/{number}/transactions", params={"asset": text.replace("\ud800", "\0")}
    )
    assert filtered.status_code == 422, filtered.text
