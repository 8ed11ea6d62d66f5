"""Postgres out of space: writes are refused whole and with a reason, nothing that was taken is lost, and room heals all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg
import httpx
import pytest

from tests.faults.report import Report
from tests.faults.route_case import route_case
from tests.faults.small_disk import missing_means, small_disk
from tests.faults.stand import FIVE, Stand

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900), pytest.mark.postgres]

REFUSALS = 10
FULL_SECONDS = 20.0
MOST_SECONDS = 90.0
Fetch = Callable[..., Awaitable[list[Any]]]
OWNERS = {"rules": "alerts", "transactions": "portfolio"}
BUY = {"type": "buy", "asset": "BTC", "quantity": "1", "price": "100", "timestamp": "2024-01-01T00:00:00Z"}
RULE = {"symbol": "BTC-USDT", "condition": {"type": "price_above", "value": "1000000000"}}


@dataclass
class Writer:
    """A user who writes rules and transactions, each with a note of its own, and keeps the answers."""

    stand: Stand
    user: str
    portfolio: int
    taken: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in OWNERS})
    refused: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in OWNERS})
    answers: Counter[str] = field(default_factory=Counter)
    vague: list[str] = field(default_factory=list)
    number: int = 0

    @classmethod
    async def made(cls, stand: Stand, user: str) -> Self:
        """The user, with a portfolio."""
        answer = await stand.client.post("/v1/portfolios", json={"name": user}, headers=stand.token(user))
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return cls(stand, user, int(answer.json()["id"]))

    async def write(self, kind: str) -> None:
        """One of them. Taken is 201; anything but a problem of status 503 that says when to come back is vague."""
        self.number += 1
        note = f"{kind} {self.number} " + "x" * 150
        path, body = (
            ("/v1/alerts", RULE)
            if kind == "rules"
            else (f"/v1/portfolios/{self.portfolio}/transactions", BUY)
        )
        headers = self.stand.token(self.user)
        try:
            answer = await self.stand.client.post(path, json={**body, "note": note}, headers=headers)
        except httpx.HTTPError as error:
            self.vague.append(f"{kind}: {type(error).__name__}")
            return
        if answer.status_code == httpx.codes.CREATED:
            self.taken[kind].add(note)
            return
        self.refused[kind].add(note)
        problem = answer.json()
        self.answers[f"{kind} {answer.status_code} {problem.get('code')}"] += 1
        told = answer.headers["content-type"] == "application/problem+json" and problem.get("detail")
        if not (answer.status_code == 503 and told and "retry-after" in answer.headers):
            self.vague.append(f"{kind}: {answer.status_code} {answer.text[:200]}")

    async def until_refused(self) -> None:
        """Until both kinds were refused a few times: what has room in a page of the tables is taken before."""
        deadline = time.monotonic() + MOST_SECONDS
        while min(map(len, self.refused.values())) < REFUSALS:
            assert time.monotonic() < deadline, f"never refused: {self.answers}"
            for kind in OWNERS:
                if len(self.refused[kind]) < REFUSALS:
                    await self.write(kind)

    async def until_taken(self) -> None:
        """Until one of each kind is taken again."""
        before = {kind: len(notes) for kind, notes in self.taken.items()}
        deadline = time.monotonic() + MOST_SECONDS
        for kind in OWNERS:
            while len(self.taken[kind]) == before[kind]:
                assert time.monotonic() < deadline, f"refused for ever: {self.answers}"
                await self.write(kind)
                await asyncio.sleep(0.2)

    async def stored(self, fetch: Fetch | None = None) -> dict[str, set[str]]:
        """The notes of what is in the tables."""
        fetch = fetch or self.stand.rows
        rules = await fetch(
            "SELECT definition->>'note' AS note FROM alerts.rules WHERE user_id = $1", self.user
        )
        legs = await fetch(
            "SELECT r.note FROM portfolio.transaction_revision r WHERE r.portfolio_id = $1", self.portfolio
        )
        return {"rules": {row["note"] for row in rules}, "transactions": {row["note"] for row in legs}}

    async def tables(self) -> dict[str, int]:
        """What each of the tables that a transaction is written to holds of them: equal when none is half done."""
        counted = """
            SELECT (SELECT transaction_count FROM portfolio.portfolio WHERE id = $1) AS book,
                   (SELECT count(*) FROM portfolio.transaction_revision WHERE portfolio_id = $1) AS revisions,
                   (SELECT count(*) FROM portfolio.transaction_current WHERE portfolio_id = $1) AS current,
                   (SELECT count(*) FROM portfolio.leg WHERE portfolio_id = $1) AS legs,
                   (SELECT sum(quantity)::bigint FROM portfolio.position WHERE portfolio_id = $1 AND asset = 'BTC') AS held
        """
        return dict((await self.stand.rows(counted, self.portfolio))[0])


async def told(stand: Stand, service: str) -> str:
    """What the service's readiness says about Postgres while it is unready; empty when it is ready."""
    answer = await stand.client.get(f"http://127.0.0.1:{stand.ports[service]}/readyz")
    down = [
        one.get("detail", "")
        for one in answer.json()["dependencies"].values()
        if one["state"] == "down" and "Postgres" in one.get("detail", "")
    ]
    return down[0] if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and down else ""


async def exhaust_wal(stand: Stand) -> bool:
    """Take up the segments of the log that are left, until Postgres panics; whether it did."""
    with_payload = "SELECT pg_logical_emit_message(false, 'fault', 'full'), pg_switch_wal()"
    try:
        connection = await asyncpg.connect(stand.servers.postgres.urls()["DATABASE_URL"], timeout=5)
        try:
            for _ in range(64):
                await connection.execute(with_payload, timeout=10)
        finally:
            await connection.close(timeout=2)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return True
    return False


async def readiness_tells(stand: Stand) -> dict[str, str]:
    """Wait until both services say that Postgres is the reason; what they say."""
    said: dict[str, str] = {}

    async def both() -> bool:
        for service in OWNERS.values():
            if found := await told(stand, service):
                said[service] = found
        return len(said) == len(OWNERS)

    await stand.until(both, what="readiness tells of it")
    return said


async def all_ready(stand: Stand) -> None:
    for service in FIVE:
        await stand.until_ready(service)


@pytest.mark.parametrize("panics", [False, True], ids=["refuses", "panics"])
async def test_20_postgres_out_of_space(stand: Stand, panics: bool) -> None:
    """No room for tables, and with `panics` none for the log either: then the server goes down and stays so."""
    if reason := missing_means():
        pytest.skip(f"Postgres needs a small filesystem of its own: {reason}")
    case = "no room for its log: it panics" if panics else "no room: it refuses"
    report = Report(20, f"Postgres has {case}, {FULL_SECONDS:.0f} s")
    writer = await Writer.made(stand, f"full-{panics}")

    async with small_disk(stand.servers) as disk:
        await all_ready(stand)
        await writer.until_taken()

        async def during() -> None:
            # A server without room cannot even take a new connection.
            before = await asyncpg.connect(stand.servers.postgres.urls()["DATABASE_URL"])
            disk.fill()
            began = time.monotonic()
            if panics:
                assert await exhaust_wal(stand), "there is room for the log without end"
            await writer.until_refused()
            report.notes["told"] = await readiness_tells(stand)
            if not panics:
                # Postgres answered each of these, so its word is final.
                assert await writer.stored(before.fetch) == writer.taken
            before.terminate()
            await asyncio.sleep(max(0.0, began + FULL_SECONDS - time.monotonic()))
            await disk.free()
            report.notes["went_down"] = not stand.servers.postgres.is_running()
            if report.notes["went_down"]:
                await stand.servers.revive("postgres")
            await all_ready(stand)
            await writer.until_taken()

        async def fill() -> None:
            stored, tables = await writer.stored(), await writer.tables()
            gone = {kind: writer.taken[kind] - stored[kind] for kind in OWNERS}
            report.lost = (report.lost or 0) + sum(map(len, gone.values()))
            taken = {kind: len(notes) for kind, notes in writer.taken.items()}
            report.notes |= {"taken": taken, "refused": dict(writer.answers), "tables": tables}
            assert not writer.vague, writer.vague
            assert len(set(tables.values())) == 1, tables

        await route_case(stand, report, during, fill=fill)
