"""Firings into Postgres: rule's state, event, outbox and deliveries in one transaction, each event once (step 9)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from cryptopulse.alerts.adapters.rows import at
from cryptopulse.alerts.adapters.session import engine
from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.application.ports import Committed, PreparedEvent
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.topics import ALERT_EVENTS, key_part
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.outbox import channel_of
from cryptopulse.common.database.pool import Database
from cryptopulse.common.telemetry import tracing

CHUNK: Final = 1_000
DELIVERIES_CHANNEL: Final = "alerts_deliveries"

_MOVE_RULES = """
UPDATE rules r SET state = f.state, runtime = f.runtime::jsonb, version = r.version + 1, updated_at = now()
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[]) AS f(id, version, state, runtime, dedupe_key)
WHERE r.id = f.id AND r.version = f.version AND NOT EXISTS (SELECT FROM events e WHERE e.dedupe_key = f.dedupe_key)
RETURNING r.id
"""
_SPEND = """
INSERT INTO budgets AS b (user_id, minute, used)
SELECT u, date_trunc('minute', now()), n FROM unnest($1::text[], $2::int[]) AS f(u, n) ORDER BY u
ON CONFLICT (user_id, minute) DO UPDATE SET used = b.used + excluded.used
RETURNING user_id, used, (SELECT tier FROM owners o WHERE o.user_id = b.user_id) AS tier
"""
_SUPPRESS = """
UPDATE budgets b SET suppressed = b.suppressed + f.n FROM unnest($1::text[], $2::int[]) AS f(u, n)
WHERE b.user_id = f.u AND b.minute = date_trunc('minute', now())
"""
_EVENTS = """
INSERT INTO events (id, user_id, rule_id, type, dedupe_key, at, symbol, source, condition, message, price, threshold, late,
                    simulated, data, notified)
SELECT id, user_id, rule_id, type, dedupe_key, at, symbol, source, condition, message, price, threshold, late, simulated,
       data::jsonb, notified
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::numeric[], $12::numeric[], $13::bool[], $14::bool[], $15::text[], $16::bool[])
     AS f(id, user_id, rule_id, type, dedupe_key, at, symbol, source, condition, message, price, threshold, late,
          simulated, data, notified)
"""
_OUTBOX = """
INSERT INTO outbox (event_id, topic, key, payload, headers)
SELECT id, $4, key, payload, $5 FROM unnest($1::text[], $2::text[], $3::bytea[]) AS f(id, key, payload)
ON CONFLICT (event_id) DO NOTHING
"""
_TARGETS = """
SELECT f.id AS event_id, w.id AS webhook_id
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS f(id, rule_id, type, n)
JOIN rules r ON r.id = f.rule_id
JOIN webhooks w ON w.id = ANY (r.webhook_ids) AND w.user_id = r.user_id AND w.enabled
     AND (w.event_types = '{}' OR f.type = ANY (w.event_types))
ORDER BY f.n
"""
DELIVERIES = """
INSERT INTO deliveries (id, webhook_id, user_id, event_id, message_id, event_type, event_at, body, traceparent)
SELECT id, webhook_id, user_id, event_id, event_id, type, at, body, $8
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[])
     AS f(id, webhook_id, user_id, event_id, type, at, body)
ON CONFLICT (webhook_id, message_id) DO NOTHING
"""


class PostgresFiringStore:
    """`FiringStore` on Postgres. `budgets` are notifications a minute by tier; beyond them an event is stored in silence."""

    def __init__(
        self, db: Database, clock: Clock, *, budgets: Mapping[str, int], default_budget: int
    ) -> None:
        self._db = db
        self._clock = clock
        self._budgets = budgets
        self._default = default_budget

    async def commit(self, events: Sequence[PreparedEvent]) -> Committed:
        """As the port says; a rule's second firing of the batch goes into a later round, at the version that follows."""
        rejected: set[str] = set()
        stored = 0
        for wave in _waves(events):
            for start in range(0, len(wave), CHUNK):
                chunk = wave[start : start + CHUNK]
                kept = await self._store([event for event in chunk if event.firing.rule_id not in rejected])
                stored += len(kept)
                rejected |= {event.firing.rule_id for event in chunk} - kept
        return Committed(stored, frozenset(rejected))

    async def tell(self, event: PreparedEvent) -> None:
        """Store one event that moves no rule (a test), with its outbox row and deliveries."""
        async with engine(self._db) as conn:
            loud = await self._spend(conn, [event])
            await _insert_events(conn, [event], loud)
            if loud:
                await self._tell(conn, [event])

    async def _store(self, events: list[PreparedEvent]) -> set[str]:
        if not events:
            return set()
        async with engine(self._db) as conn:
            rows = await conn.fetch(
                _MOVE_RULES,
                [event.firing.rule_id for event in events],
                [event.firing.version for event in events],
                [event.firing.state for event in events],
                [orjson.dumps(event.firing.runtime).decode() for event in events],
                [event.firing.dedupe_key for event in events],
            )
            moved = {row["id"] for row in rows}
            kept = [event for event in events if event.firing.rule_id in moved]
            if kept:
                loud = await self._spend(conn, kept)
                await _insert_events(conn, kept, loud)
                told = [event for event in kept if event.id in loud]
                if told:
                    await self._tell(conn, told)
        return moved

    async def _spend(self, conn: Connection, events: Sequence[PreparedEvent]) -> set[str]:
        """The ids of the events whose owners have notifications left this minute."""
        by_user: dict[str, list[str]] = defaultdict(list)
        for event in events:
            by_user[event.firing.user_id].append(event.id)
        users = sorted(by_user)
        rows = await conn.fetch(_SPEND, users, [len(by_user[user]) for user in users])
        loud: set[str] = set()
        silent: dict[str, int] = {}
        for row in rows:
            ids = by_user[row["user_id"]]
            limit = self._budgets.get(row["tier"] or "", self._default)
            left = max(0, limit - (row["used"] - len(ids)))
            loud.update(ids[:left])
            if len(ids) > left:
                silent[row["user_id"]] = len(ids) - left
        if silent:
            await conn.execute(_SUPPRESS, list(silent), list(silent.values()))
        return loud

    async def _tell(self, conn: Connection, events: Sequence[PreparedEvent]) -> None:
        """Outbox rows and deliveries of these events."""
        headers: dict[str, Any] = {}
        tracing.inject(headers)
        await conn.execute(
            _OUTBOX,
            [event.id for event in events],
            [routing_key(event.firing.user_id, event.firing.rule_id) for event in events],
            [event.payload for event in events],
            ALERT_EVENTS.type_name,
            headers,
        )
        await conn.execute("SELECT pg_notify($1, '')", channel_of(self._db.schema))
        by_id = {event.id: event for event in events}
        targets = await conn.fetch(
            _TARGETS,
            [event.id for event in events],
            [event.firing.rule_id for event in events],
            [event.firing.type for event in events],
        )
        if not targets:
            return
        found = [(by_id[row["event_id"]], row["webhook_id"]) for row in targets]
        now_ms = self._clock.now_ms()
        await conn.execute(
            DELIVERIES,
            [new_id("wd", now_ms) for _ in found],
            [webhook for _, webhook in found],
            [event.firing.user_id for event, _ in found],
            [event.id for event, _ in found],
            [event.firing.type for event, _ in found],
            [at(self._clock.now_ms()) for _ in found],
            [event.body for event, _ in found],
            headers.get(tracing.TRACEPARENT),
        )
        await conn.execute("SELECT pg_notify($1, '')", DELIVERIES_CHANNEL)


def routing_key(user_id: str, rule_id: str) -> str:
    """`alert.<user>.<rule>`, user-given words made safe."""
    return f"alert.{key_part(user_id)}.{key_part(rule_id) or '-'}"


async def _insert_events(conn: Connection, events: Sequence[PreparedEvent], loud: set[str]) -> None:
    await conn.execute(
        _EVENTS,
        [event.id for event in events],
        [event.firing.user_id for event in events],
        [event.firing.rule_id for event in events],
        [event.firing.type for event in events],
        [event.firing.dedupe_key for event in events],
        [at(event.firing.cause.at_ms) for event in events],
        [event.firing.symbol for event in events],
        [event.firing.source for event in events],
        [event.firing.condition for event in events],
        [event.message for event in events],
        [event.firing.price for event in events],
        [event.firing.threshold for event in events],
        [event.firing.cause.late for event in events],
        [event.firing.cause.simulated for event in events],
        [
            orjson.dumps({**event.firing.data, "direction": event.firing.direction}).decode()
            for event in events
        ],
        [event.id in loud for event in events],
    )


def _waves(events: Sequence[PreparedEvent]) -> list[list[PreparedEvent]]:
    """The first firing of each rule, then the second of each, and so on."""
    waves: list[list[PreparedEvent]] = []
    seen: dict[str, int] = defaultdict(int)
    for event in events:
        wave = seen[event.firing.rule_id]
        seen[event.firing.rule_id] += 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(event)
    return waves
