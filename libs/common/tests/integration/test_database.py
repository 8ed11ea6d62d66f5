"""The pool takes the service's role, keeps callers apart, and outlives every kind of outage of Postgres."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from cryptopulse.common.database import pool as pool_module
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Invalid, StoreUnavailable
from cryptopulse.common.testing.tcp_proxy import TcpProxy

SCHEMA, ROLE = "alerts", "cryptopulse_alerts"
TABLES = """
CREATE TABLE notes (id bigserial PRIMARY KEY, owner text NOT NULL, body text UNIQUE, amount numeric(38, 18), data jsonb);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (owner = current_setting('app.user_id', true));
CREATE TABLE plain (n integer);
"""


@pytest.fixture
async def url(postgres_db: str, tmp_path: Path) -> str:
    (tmp_path / "0001_notes.sql").write_text(TABLES)
    await migrate(postgres_db, schema=SCHEMA, role=ROLE, directory=tmp_path)
    return postgres_db


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    db = Database(url, schema=SCHEMA, role=options.pop("role", ROLE), application_name="test", **options)
    await db.start()
    try:
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    async with TcpProxy(parts.hostname, parts.port or 5432) as proxy:
        account = parts.netloc.rpartition("@")[0]
        yield proxy, urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{proxy.port}"))


async def until(claim: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PING_SECONDS", 0.2)
    monkeypatch.setattr(pool_module, "ACQUIRE_SECONDS", 0.5)


async def test_statements_run_under_the_role_in_the_schema_in_utc(url: str) -> None:
    async with opened(url) as db, db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT current_user::text AS u, current_schema()::text AS s, current_setting('TimeZone') AS z"
        )

        assert (row["u"], row["s"], row["z"]) == (ROLE, SCHEMA, "UTC")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DROP TABLE plain")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM schema_migrations")


async def test_numbers_are_exact_and_json_is_plain_data(url: str) -> None:
    async with opened(url) as db, db.transaction("u1") as connection:
        row = await connection.fetchrow(
            "INSERT INTO notes (owner, amount, data) VALUES ('u1', $1, $2) RETURNING amount, data",
            Decimal("123456789012345678.000000000000000001"),
            {"price": Decimal("0.10"), "list": [1, None, True], "text": "\u00e9"},
        )

    assert row["amount"] == Decimal("123456789012345678.000000000000000001")
    assert row["data"] == {"price": "0.10", "list": [1, None, True], "text": "\u00e9"}


async def test_a_transaction_is_all_or_nothing(url: str) -> None:
    async with opened(url) as db:

        async def fails() -> None:
            async with db.transaction() as connection:
                await connection.execute("INSERT INTO plain VALUES (1)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails()
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO plain VALUES (2)")
        async with db.connection() as connection:
            assert [row["n"] for row in await connection.fetch("SELECT n FROM plain")] == [2]


async def test_rows_of_others_are_not_seen_and_the_user_does_not_stick(url: str) -> None:
    async with opened(url, max_size=1) as db:
        async with db.transaction("u1") as connection:
            await connection.execute("INSERT INTO notes (owner, body) VALUES ('u1', 'mine')")
            assert await connection.fetchval("SELECT count(*) FROM notes") == 1
        async with db.transaction("u2") as connection:
            assert await connection.fetchval("SELECT count(*) FROM notes") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("INSERT INTO notes (owner) VALUES ('u1')")
        async with db.transaction() as connection:
            assert await connection.fetchval("SELECT count(*) FROM notes") == 0
        async with db.connection() as connection:
            assert (
                await connection.fetchval("SELECT coalesce(current_setting('app.user_id', true), '')") == ""
            )


async def test_a_mistake_of_ours_is_not_called_an_outage(url: str) -> None:
    async with opened(url) as db:
        with pytest.raises(asyncpg.UniqueViolationError):
            async with db.transaction("u1") as connection:
                await connection.execute("INSERT INTO notes (owner, body) VALUES ('u1', 'x'), ('u1', 'x')")
        with pytest.raises(asyncpg.DataError):
            async with db.connection() as connection:
                await connection.execute("SELECT $1::int", "text")
        with pytest.raises(asyncpg.InterfaceError):
            async with db.connection() as connection:
                await connection.fetch("SELECT $1::int, $2::int", 1)
        with pytest.raises(asyncpg.PostgresSyntaxError):
            async with db.connection() as connection:
                await connection.execute("SELEC 1")


@pytest.mark.parametrize(("owner", "text"), [("a\0b", "x"), ("u1", "a\0b")])
async def test_a_text_that_postgres_cannot_keep_is_the_callers_fault(url: str, owner: str, text: str) -> None:
    async with opened(url) as db:

        async def keep() -> None:
            async with db.transaction("u1") as connection:
                statement = "INSERT INTO notes (owner, amount, data) VALUES ($1, 1, $2)"
                await connection.execute(statement, owner, {"text": text})

        with pytest.raises(Invalid) as refused:
            await keep()
        assert refused.value.code == "not-text"


async def test_a_slow_statement_ends_and_its_connection_goes_on(url: str) -> None:
    async with opened(url, statement_timeout_ms=100, max_size=1) as db:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="in time"):
            async with db.connection() as connection:
                await connection.execute("SELECT pg_sleep(10)")
        assert time.monotonic() - began < 2
        async with db.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.usefixtures("quick")
async def test_it_starts_while_postgres_is_away_and_connects_when_it_comes(url: str) -> None:
    async with proxied(url) as (proxy, through):
        proxy.toxics.refuse = True
        async with opened(through) as db:
            with pytest.raises(StoreUnavailable):
                async with db.connection():
                    pytest.fail("there is nobody to connect to")
            assert not db.check().ok
            proxy.toxics.refuse = False
            await until(lambda: db.check().ok)
            async with db.connection() as connection:
                assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.usefixtures("quick")
async def test_it_heals_after_all_connections_were_cut(url: str) -> None:
    async with proxied(url) as (proxy, through), opened(through, min_size=3) as db:
        await until(lambda: db.check().ok)
        proxy.toxics.refuse = True
        proxy.reset()
        await until(lambda: not db.check().ok)
        assert "does not answer" in db.check().detail
        proxy.toxics.refuse = False
        await until(lambda: db.check().ok)
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO plain VALUES (1)")


@pytest.mark.usefixtures("quick")
async def test_a_connection_cut_inside_a_transaction_is_an_outage_not_a_crash(url: str) -> None:
    async with proxied(url) as (proxy, through), opened(through) as db:

        async def is_cut() -> None:
            async with db.transaction() as connection:
                await connection.execute("INSERT INTO plain VALUES (1)")
                proxy.reset()
                await asyncio.sleep(0.05)
                await connection.execute("INSERT INTO plain VALUES (2)")

        with pytest.raises(StoreUnavailable):
            await is_cut()
        async with db.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM plain") == 0


@pytest.mark.usefixtures("quick")
async def test_a_silent_partition_is_noticed_in_bounded_time(url: str) -> None:
    async with proxied(url) as (proxy, through), opened(through, statement_timeout_ms=200) as db:
        await until(lambda: db.check().ok)
        proxy.toxics.blackhole = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            async with db.connection() as connection:
                await connection.fetchval("SELECT 1")
        assert time.monotonic() - began < 6
        await until(lambda: not db.check().ok)
        proxy.toxics.blackhole = False
        await until(lambda: db.check().ok)


@pytest.mark.usefixtures("quick")
async def test_a_ping_that_runs_out_of_time_does_not_end_the_pings(url: str) -> None:
    async with proxied(url) as (proxy, through), opened(through) as db:
        await until(lambda: db.check().ok)
        proxy.toxics.blackhole = True
        await until(lambda: not db.check().ok, 30)
        proxy.toxics.blackhole = False
        proxy.reset()
        await until(lambda: db.check().ok, 30)


@pytest.mark.usefixtures("quick")
async def test_a_fail_over_that_answers_read_only_makes_new_connections(url: str) -> None:
    name = urlsplit(url).path[1:]
    admin = await asyncpg.connect(url)
    try:
        async with opened(url, max_size=2) as db:
            await until(lambda: db.check().ok)
            await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
            )
            await until(lambda: "read-only" in db.check().detail)
            with pytest.raises(StoreUnavailable, match="read-only"):
                async with db.transaction() as connection:
                    await connection.execute("INSERT INTO plain VALUES (1)")

            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            await until(lambda: db.check().ok)
            async with db.transaction() as connection:
                await connection.execute("INSERT INTO plain VALUES (2)")
    finally:
        await admin.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [asyncpg.InternalClientError("cannot switch to state 12"), KeyError("x")])
async def test_the_pings_outlive_a_driver_in_disorder(
    url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def in_disorder(*_: object) -> None:
        raise error

    async with opened(url) as db:
        await until(lambda: db.check().ok)
        with monkeypatch.context() as broken:
            broken.setattr(asyncpg.pool.PoolConnectionProxy, "fetchval", in_disorder)
            await until(lambda: type(error).__name__ in db.check().detail)
        await until(lambda: db.check().ok)


@pytest.mark.usefixtures("quick")
async def test_a_full_disk_shows_until_there_is_room(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "DO $$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
    async with opened(url) as db:
        await until(lambda: db.check().ok)
        with monkeypatch.context() as full:
            full.setattr(pool_module, "NEEDS_ROOM", refusal)
            with pytest.raises(StoreUnavailable, match="no room left"):
                async with db.transaction() as connection:
                    await connection.execute(refusal)
            await until(lambda: "no room left" in db.check().detail)
            for _ in range(3):  # it stays so from ping to ping
                last = db._checked_at
                async with asyncio.timeout(15):
                    while db._checked_at == last:
                        await asyncio.sleep(0.02)
                assert not db.check().ok
        await until(lambda: db.check().ok)


async def test_what_looks_for_room_writes_to_the_disk(url: str) -> None:
    admin = await asyncpg.connect(url)
    try:
        written = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
        before = await admin.fetchval(written)
        async with opened(url) as db, db.connection() as connection:
            await pool_module._find_room(connection)
        async with asyncio.timeout(15):
            while await admin.fetchval(written) - before < 1_000_000:
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


@pytest.mark.usefixtures("quick")
async def test_an_exhausted_pool_refuses_in_time_and_shows(url: str) -> None:
    async with opened(url, max_size=1) as db:
        await until(lambda: db.check().ok)
        async with db.connection():
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                async with db.connection():
                    pytest.fail("there was one connection only")
            assert time.monotonic() - began < 2
            await until(lambda: db.check().detail == "the pool is exhausted")
        await until(lambda: db.check().ok)


@pytest.mark.usefixtures("quick")
async def test_a_role_that_does_not_exist_says_what_to_do(url: str) -> None:
    async with opened(url, role="cryptopulse_nobody") as db:
        await until(lambda: "run the service's `migrate` command" in db.check().detail)
        with pytest.raises(StoreUnavailable, match="cryptopulse_nobody"):
            async with db.connection():
                pytest.fail("the role does not exist")
        with pytest.raises(StoreUnavailable, match="cryptopulse_nobody"):
            async with db.dedicated():
                pytest.fail("the role does not exist")


@pytest.mark.usefixtures("quick")
async def test_a_user_who_may_not_take_the_role_is_told_what_to_do_and_heals_by_the_grant(url: str) -> None:
    name, password = f"lesser_{secrets.token_hex(4)}", secrets.token_hex(8)
    parts = urlsplit(url)
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        lesser = urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))
        async with opened(lesser) as db:
            await until(lambda: "permission denied to set role" in db.check().detail)
            assert "run the service's `migrate` command" in db.check().detail
            await admin.execute(f"GRANT {ROLE} TO {name}")
            await until(lambda: db.check().ok)
    finally:
        await admin.execute(f"DROP ROLE IF EXISTS {name}")
        await admin.close()


async def test_a_cancelled_caller_gives_its_connection_back(url: str) -> None:
    async with opened(url, max_size=1) as db:
        started = asyncio.Event()

        async def sleeps() -> None:
            async with db.transaction() as connection:
                started.set()
                await connection.execute("SELECT pg_sleep(4)")

        for _ in range(3):
            started.clear()
            task = asyncio.create_task(sleeps())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with db.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_the_minimum_is_opened_ahead(url: str) -> None:
    async with opened(url, min_size=4) as db:
        await until(lambda: db._pool.get_size() == 4)


async def test_use_before_the_start_and_after_the_end_is_an_outage(url: str) -> None:
    db = Database(url, schema=SCHEMA, role=ROLE, application_name="test")
    with pytest.raises(StoreUnavailable, match="not started"):
        async with db.connection():
            pytest.fail("not started")
    await db.start()
    await db.close()
    assert not db.check().ok
    with pytest.raises(StoreUnavailable):
        async with db.connection():
            pytest.fail("closed")
