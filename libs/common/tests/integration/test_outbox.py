"""The outbox: with its cause or not at all, at least once, in order per key, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, Topic
from cryptopulse.common.database import outbox as module
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.outbox import OUTBOX_SQL, OutboxRelay, enqueue
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.context import REQUEST_ID

SCHEMA, ROLE = "portfolio", "cryptopulse_portfolio"


class FakeBus:
    """Confirms what it is given, unless told to fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, Any]] = []
        self.messages: list[Message] = []
        self.refuse: set[str] = set()
        self.is_away = False
        self.confirms = True

    async def publish(
        self,
        topic: Topic,
        message: Message,
        *,
        key: str,
        cc: Sequence[str] = (),
        message_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        assert topic is PORTFOLIO_EVENTS
        assert message_id is not None
        await asyncio.sleep(0)
        if self.is_away or message_id in self.refuse:
            raise BusUnavailable("not confirmed")
        self.sent.append((key, message_id))
        self.messages.append(message)
        self.headers.append({**(headers or {}), "cc": list(cc)})
        if not self.confirms:
            await asyncio.Event().wait()

    @property
    def ids(self) -> list[str]:
        return [message_id for _, message_id in self.sent]


def changed(version: int = 1) -> PortfolioChanged:
    return PortfolioChanged(
        id=f"e{version}",
        user_id="u1",
        portfolio_id=1,
        version=version,
        at_ms=1,
        kind="transaction",
        assets=["BTC"],
    )


@pytest.fixture
async def db(postgres_db: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "0001_outbox.sql").write_text(OUTBOX_SQL)
    await migrate(postgres_db, schema=SCHEMA, role=ROLE, directory=tmp_path)
    database = Database(postgres_db, schema=SCHEMA, role=ROLE, application_name="test")
    await database.start()
    yield database
    await database.close()


async def write(db: Database, *ids: str, key: str = "portfolio.u1.1") -> None:
    async with db.transaction() as connection:
        for event_id in ids:
            await enqueue(connection, PORTFOLIO_EVENTS, changed(), key, event_id)


async def pending(db: Database) -> int:
    async with db.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE published_at IS NULL AND failed_at IS NULL"
            )
        )


@asynccontextmanager
async def running(relay: OutboxRelay) -> AsyncIterator[list[int]]:
    beats = [0]

    def beat() -> None:
        beats[0] += 1

    task = asyncio.create_task(relay.run(beat))
    try:
        yield beats
        assert not task.done(), "the relay ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.005)


async def test_a_rolled_back_cause_tells_nothing(db: Database) -> None:
    bus = FakeBus()

    async def fails() -> None:
        async with db.transaction() as connection:
            await enqueue(connection, PORTFOLIO_EVENTS, changed(), "k", "e1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    await OutboxRelay(db, bus).drain()

    assert bus.ids == []


async def test_the_same_event_is_written_once(db: Database) -> None:
    async with db.transaction() as connection:
        assert await enqueue(connection, PORTFOLIO_EVENTS, changed(), "k", "e1") is True
        assert await enqueue(connection, PORTFOLIO_EVENTS, changed(), "k", "e1") is False
    bus = FakeBus()
    await OutboxRelay(db, bus).drain()

    assert bus.ids == ["e1"]
    assert bus.messages == [changed()]


async def test_a_commit_wakes_the_relay_long_before_it_would_poll(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 30.0)
    bus = FakeBus()
    async with running(OutboxRelay(db, bus)):
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await write(db, "e1")
        await until(lambda: bus.ids == ["e1"])

        assert loop.time() - began < 10


async def test_without_the_wake_up_line_it_polls(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(module, "channel_of", lambda _schema: "another_channel")
    bus = FakeBus()
    async with running(OutboxRelay(db, bus)):
        await asyncio.sleep(0.2)
        await write(db, "e1")
        await until(lambda: bus.ids == ["e1"])


async def test_what_the_broker_did_not_confirm_stays_and_is_sent_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    bus = FakeBus()
    bus.is_away = True
    await write(db, "e1", "e2")
    async with running(OutboxRelay(db, bus)) as beats:
        before = beats[0]
        await until(lambda: beats[0] > before + 2)
        assert bus.ids == []
        assert await pending(db) == 2
        bus.is_away = False
        await until(lambda: bus.ids == ["e1", "e2"])


async def test_a_crash_between_publish_and_mark_publishes_again_under_the_same_id(db: Database) -> None:
    bus = FakeBus()
    bus.confirms = False
    await write(db, "e1")
    dies = asyncio.create_task(OutboxRelay(db, bus).relay_once())
    await until(lambda: bus.ids == ["e1"])
    dies.cancel()
    await asyncio.gather(dies, return_exceptions=True)
    bus.confirms = True
    await OutboxRelay(db, bus).drain()

    assert bus.ids == ["e1", "e1"]
    assert await pending(db) == 0


async def test_rows_of_a_key_keep_their_order_when_one_fails(db: Database) -> None:
    bus = FakeBus()
    await write(db, "a1", "a2", "a3", key="a")
    await write(db, "b1", "b2", key="b")
    bus.refuse = {"a2"}
    relay = OutboxRelay(db, bus)
    await relay.relay_once()
    assert sorted(bus.ids) == ["a1", "b1", "b2"]
    bus.refuse = set()
    await relay.drain()

    assert [i for i in bus.ids if i.startswith("a")] == ["a1", "a2", "a3"]


async def test_two_replicas_take_turns_and_nothing_is_lost_doubled_or_reordered(db: Database) -> None:
    bus = FakeBus()
    async with running(OutboxRelay(db, bus, batch=7)), running(OutboxRelay(db, bus, batch=7)):
        for number in range(150):
            await write(db, f"{number:03}", key=f"k{number % 4}")
        # Until all are marked: a relay that is cancelled between the two leaves its rows to the other, who publishes them again.
        async with asyncio.timeout(10):
            while await pending(db):
                await asyncio.sleep(0.005)

    assert sorted(bus.ids) == [f"{number:03}" for number in range(150)]
    for key in ("k0", "k1", "k2", "k3"):
        mine = [message_id for sent_key, message_id in bus.sent if sent_key == key]
        assert mine == sorted(mine)


async def test_a_drain_waits_for_what_another_replica_has_in_hand(db: Database) -> None:
    bus = FakeBus()
    bus.confirms = False
    await write(db, "e1")
    holder = asyncio.create_task(OutboxRelay(db, bus).relay_once())
    await until(lambda: bus.ids == ["e1"])
    await write(db, "e2", key="another")
    drain = asyncio.create_task(OutboxRelay(db, bus).drain())
    await asyncio.sleep(0.1)
    assert not drain.done()
    bus.confirms = True
    holder.cancel()
    await asyncio.wait_for(drain, 5)

    assert await pending(db) == 0
    await asyncio.gather(holder, return_exceptions=True)


async def test_a_row_that_can_never_be_published_is_set_aside_and_the_rest_goes_on(db: Database) -> None:
    bus = FakeBus()
    async with db.transaction() as connection:
        await connection.execute(
            "INSERT INTO outbox (event_id, topic, key, payload) VALUES ('bad1', 'gone.v9', 'k', ''), ('bad2', $1, 'k', 'x')",
            PORTFOLIO_EVENTS.type_name,
        )
    await write(db, "good", key="k")
    relay = OutboxRelay(db, bus)
    await relay.drain()
    await relay._measure()

    assert bus.ids == ["good"]
    async with db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_id, error FROM outbox WHERE failed_at IS NOT NULL ORDER BY id"
        )
        assert [row["event_id"] for row in rows] == ["bad1", "bad2"]
        assert "KeyError" in rows[0]["error"]
    assert REGISTRY.get_sample_value("cryptopulse_outbox_failed_rows", {"schema": SCHEMA}) == 2


async def test_trace_request_id_and_further_keys_travel_with_the_row(db: Database) -> None:
    token = REQUEST_ID.set("req-12345678")
    tracing.collect_in_memory()
    try:
        async with db.transaction() as connection:
            with tracing.span("cause") as span:
                await enqueue(connection, PORTFOLIO_EVENTS, changed(), "k", "e1", cc=("portfolio.all",))
            trace_id = format(span.get_span_context().trace_id, "032x")
    finally:
        REQUEST_ID.reset(token)
        tracing.shutdown()
    bus = FakeBus()
    await OutboxRelay(db, bus).drain()

    assert bus.headers[0]["x-request-id"] == "req-12345678"
    assert bus.headers[0]["traceparent"].split("-")[1] == trace_id
    assert bus.headers[0]["cc"] == ["portfolio.all"]


async def test_it_goes_on_after_postgres_cut_every_connection(
    db: Database, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    bus = FakeBus()
    admin = await asyncpg.connect(postgres_db)
    try:
        async with running(OutboxRelay(db, bus)):
            await write(db, "e1")
            await until(lambda: bus.ids == ["e1"])
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'test'"
            )
            await asyncio.sleep(0.1)
            await write(db, "e2")
            # The cut may have come between publishing and marking the first: then it came twice, under one id.
            await until(lambda: list(dict.fromkeys(bus.ids)) == ["e1", "e2"])
    finally:
        await admin.close()


async def test_what_waits_is_measured_and_what_is_old_is_forgotten(db: Database) -> None:
    bus = FakeBus()
    await write(db, "old", "new")
    relay = OutboxRelay(db, bus)
    async with db.connection() as connection:
        await connection.execute("UPDATE outbox SET created_at = now() - interval '90 seconds'")
    await relay._measure()
    assert REGISTRY.get_sample_value("cryptopulse_outbox_pending_rows", {"schema": SCHEMA}) == 2
    age = REGISTRY.get_sample_value("cryptopulse_outbox_oldest_age_seconds", {"schema": SCHEMA})
    assert age is not None
    assert 89 < age < 120

    await relay.drain()
    async with db.connection() as connection:
        await connection.execute(
            "UPDATE outbox SET published_at = now() - interval '4 days' WHERE event_id = 'old'"
        )
    await relay._clean()
    async with db.connection() as connection:
        assert [row["event_id"] for row in await connection.fetch("SELECT event_id FROM outbox")] == ["new"]
