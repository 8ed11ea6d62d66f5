"""The outbox: a message is written in the transaction of what it tells, and published afterwards, at least once.

The broker confirms before a row is marked, so a crash between the two publishes again under the same message id, and
consumers drop what they have. Rows of one routing key are published in the order in which they were written.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.topics import TOPIC_BY_TYPE, Topic
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Retryable, StoreUnavailable
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.context import current_request_id
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge

OUTBOX_SQL: Final = """\
CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    topic text NOT NULL,
    key text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    failed_at timestamptz,
    error text
);
CREATE INDEX outbox_pending ON outbox (id) WHERE published_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;
"""
"""The table, to be put into a migration. `failed_at` is set on a row that can never be published; clear it to replay."""

BATCH: Final = 200
POLL_SECONDS: Final = 1.0
DRAIN_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 5.0
KEEP_DAYS: Final = 3
CLEAN_EVERY_SECONDS: Final = 60.0
MEASURE_EVERY_SECONDS: Final = 5.0

_PENDING: Final = gauge("cryptopulse_outbox_pending_rows", "Rows that wait to be published.", ("schema",))
_OLDEST: Final = gauge(
    "cryptopulse_outbox_oldest_age_seconds", "Age of the oldest row that waits.", ("schema",)
)
_FAILED: Final = gauge(
    "cryptopulse_outbox_failed_rows", "Rows that cannot be published without an operator.", ("schema",)
)
_PUBLISHED: Final = counter(
    "cryptopulse_outbox_published_total", "Rows published and marked.", ("schema", "topic")
)

log = get_logger(__name__)


class OutboxPublisher(Protocol):
    """What the relay needs of the bus: for a durable topic it returns once the broker has confirmed."""

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
        """Raises `errors.BusUnavailable` when it was not confirmed; the same id may be published again."""
        ...


def channel_of(schema: str) -> str:
    """The NOTIFY channel that wakes the relay of a schema."""
    return f"{schema}_outbox"


async def enqueue(
    conn: Connection, topic: Topic, message: Message, key: str, event_id: str, *, cc: Sequence[str] = ()
) -> bool:
    """Write a message into the outbox, in the caller's transaction; the relay is woken when that commits.

    `event_id` becomes the message id. Writing the same one again changes nothing and answers False.
    """
    headers: dict[str, Any] = {}
    tracing.inject(headers)
    if request_id := current_request_id():
        headers["x-request-id"] = request_id
    if cc:
        headers["cc"] = list(cc)
    written = await conn.fetchval(
        "INSERT INTO outbox (event_id, topic, key, payload, headers) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (event_id) DO NOTHING RETURNING id, pg_notify(current_schema() || '_outbox', '')",
        event_id,
        topic.type_name,
        key,
        msgspec.msgpack.encode(message),
        headers,
    )
    return written is not None


class OutboxRelay:
    """Publishes what waits in the outbox of a schema. Several replicas may run one: they take turns, order holds."""

    def __init__(self, db: Database, publisher: OutboxPublisher, *, batch: int = BATCH) -> None:
        self._db = db
        self._publisher = publisher
        self._batch = batch
        self._wake = asyncio.Event()
        self._decoders: dict[str, msgspec.msgpack.Decoder[Message]] = {}

    async def run(self, beat: Callable[[], None]) -> None:
        """Publish for ever: at once after a commit, at the latest after a second. Never ends because a store is away."""
        loop = asyncio.get_running_loop()
        next_measure = next_clean = loop.time()
        pause = POLL_SECONDS
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                beat()
                self._wake.clear()
                try:
                    moved = await self.relay_once()
                    if loop.time() >= next_measure:
                        await self._measure()
                        next_measure = loop.time() + MEASURE_EVERY_SECONDS
                    if loop.time() >= next_clean:
                        await self._clean()
                        next_clean = loop.time() + CLEAN_EVERY_SECONDS
                    pause = POLL_SECONDS
                except Retryable as error:
                    log.warning("outbox waits", schema=self._db.schema, error=str(error))
                    moved = 0
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                if moved == 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def drain(self) -> None:
        """Publish what waits now, for a drain step with a limit; ends when nothing waits any more.

        Raises `errors.Retryable` when the bus or Postgres is away. Another replica may be publishing: it is waited for.
        """
        while await self.relay_once() or await self._is_waiting():  # noqa: ASYNC110 - no event tells of the other replica
            await asyncio.sleep(DRAIN_PAUSE_SECONDS)

    async def _is_waiting(self) -> bool:
        async with self._db.connection() as conn:
            return bool(
                await conn.fetchval(
                    "SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL AND failed_at IS NULL)"
                )
            )

    async def relay_once(self) -> int:
        """Publish one batch and mark what the broker confirmed; the number of rows that are done with.

        Raises `StoreUnavailable`, or `BusUnavailable` when nothing of the batch could be published.
        """
        async with self._db.transaction() as conn:
            # One relay per schema at a time, so that the rows of a key keep their order over replicas.
            if not await conn.fetchval(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('cryptopulse.outbox.' || current_schema(), 0))"
            ):
                return 0
            rows = await conn.fetch(
                "SELECT id, event_id, topic, key, payload, headers FROM outbox"
                " WHERE published_at IS NULL AND failed_at IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
                self._batch,
            )
            if not rows:
                return 0
            by_key: dict[tuple[str, str], list[Any]] = defaultdict(list)
            for row in rows:
                by_key[row["topic"], row["key"]].append(row)
            outcomes = await asyncio.gather(*(self._publish_in_order(group) for group in by_key.values()))
            published = [row for outcome in outcomes for row in outcome.published]
            failed = [pair for outcome in outcomes for pair in outcome.failed]
            if published:
                await conn.execute(
                    "UPDATE outbox SET published_at = now() WHERE id = ANY($1::bigint[])",
                    [row["id"] for row in published],
                )
            if failed:
                await conn.executemany(
                    "UPDATE outbox SET failed_at = now(), error = $2 WHERE id = $1",
                    [(row["id"], reason[:500]) for row, reason in failed],
                )
        for row in published:
            _PUBLISHED.labels(self._db.schema, row["topic"]).inc()
        retry = next((outcome.retry for outcome in outcomes if outcome.retry is not None), None)
        if retry is not None and not published:
            raise retry
        return len(published) + len(failed)

    async def _publish_in_order(self, rows: Sequence[Any]) -> _Outcome:
        """The rows of one key, one after another; the rest waits as soon as one could not be published."""
        outcome = _Outcome()
        for row in rows:
            try:
                await self._publish(row)
            except Retryable as error:
                outcome.retry = error
                break
            except Exception as error:
                log.exception("outbox row cannot be published", event_id=row["event_id"], topic=row["topic"])
                outcome.failed.append((row, f"{type(error).__name__}: {error}"))
            else:
                outcome.published.append(row)
        return outcome

    async def _publish(self, row: Any) -> None:
        topic = TOPIC_BY_TYPE[row["topic"]]
        decoder = self._decoders.get(row["topic"])
        if decoder is None:
            decoder = self._decoders[row["topic"]] = msgspec.msgpack.Decoder(topic.message)
        headers = dict(row["headers"])
        cc = tuple(headers.pop("cc", ()))
        with tracing.attached(tracing.extract(headers)):
            await self._publisher.publish(
                topic,
                decoder.decode(row["payload"]),
                key=row["key"],
                cc=cc,
                message_id=row["event_id"],
                headers=headers,
            )

    async def _listen(self) -> None:
        """Wake the relay at each NOTIFY; while this line is down, polling does."""
        pause = POLL_SECONDS
        while True:
            with contextlib.suppress(StoreUnavailable, Exception):
                async with self._db.dedicated() as connection:
                    await connection.add_listener(channel_of(self._db.schema), lambda *_: self._wake.set())
                    pause = POLL_SECONDS
                    self._wake.set()
                    while not connection.is_closed():
                        await asyncio.sleep(10.0)
                        await connection.fetchval("SELECT 1")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _measure(self) -> None:
        async with self._db.connection() as conn:
            row = await conn.fetchrow(
                "SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age,"
                " (SELECT count(*) FROM outbox WHERE failed_at IS NOT NULL) AS failed"
                " FROM outbox WHERE published_at IS NULL AND failed_at IS NULL"
            )
        _PENDING.labels(self._db.schema).set(row["pending"])
        _OLDEST.labels(self._db.schema).set(row["age"])
        _FAILED.labels(self._db.schema).set(row["failed"])

    async def _clean(self) -> None:
        """Forget what was published days ago, a bounded piece at a time."""
        async with self._db.connection() as conn:
            await conn.execute(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE published_at < now() - make_interval(days => $1)"
                " ORDER BY published_at LIMIT 5000)",
                KEEP_DAYS,
            )


class _Outcome:
    """What became of the rows of one key."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.failed: list[tuple[Any, str]] = []
        self.retry: Retryable | None = None
