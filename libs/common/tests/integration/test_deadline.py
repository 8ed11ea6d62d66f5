"""A read whose caller has given up is stopped, and Postgres with it; a write runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.runtime import Runtime
from cryptopulse.common.web.client import ServiceClient

ROLE = "cryptopulse_deadline"
SLEEP = "SELECT pg_sleep(4)"


class Signer:
    def sign(self, identity: Identity, audience: str) -> str:
        return f"{identity.kind}-{audience}"


@pytest.fixture
async def database(postgres_db: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "0001_notes.sql").write_text("CREATE TABLE notes (text text)")
    await migrate(postgres_db, schema="deadline", role=ROLE, directory=tmp_path)
    db = Database(postgres_db, schema="deadline", role=ROLE, application_name="deadline-test")
    await db.start()
    yield db
    await db.close()


@pytest.fixture
async def client(database: Database) -> AsyncIterator[ServiceClient]:
    app = Runtime("deadline", clock=SystemClock(), version="1").app

    @app.get("/slow")
    async def slow() -> None:
        async with database.connection() as connection:
            await connection.fetch(SLEEP)

    @app.post("/slow")
    async def write() -> None:
        await asyncio.sleep(0.3)
        async with database.connection() as connection:
            await connection.execute("INSERT INTO notes VALUES ('kept')")

    service = ServiceClient(
        "http://deadline", "deadline", Signer(), timeout_seconds=0.2, transport=httpx.ASGITransport(app)
    )
    yield service
    await service.close()


async def test_a_query_that_nobody_waits_for_is_cancelled(client: ServiceClient, database: Database) -> None:
    with pytest.raises(UpstreamUnavailable):
        await client.request("GET", "/slow", identity=Identity(None, kind="service"))
    async with database.connection() as connection:
        running = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'", SLEEP
        )
    assert running == 0


async def test_a_write_runs_to_its_end(client: ServiceClient, database: Database) -> None:
    answer = await client.request("POST", "/slow", identity=Identity(None, kind="service"))
    assert answer.status_code == 200
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT text FROM notes") == "kept"
