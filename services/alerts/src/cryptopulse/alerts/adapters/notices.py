"""Events that belong to no single rule: summaries of what the notification budget kept silent, endpoints that were disabled,
pairs that are new; and the cleaning up of old rows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from cryptopulse.alerts.adapters.firing_store import routing_key
from cryptopulse.alerts.adapters.session import engine
from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.application.ports import Due
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.alerts import AlertEvent, AlertEventType
from cryptopulse.common.contracts.topics import ALERT_EVENTS
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.outbox import channel_of
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
EVERY_SECONDS: Final = 5.0
CLEAN_SECONDS: Final = 300.0
KEEP_EVENTS_DAYS: Final = 90
KEEP_BUDGETS_DAYS: Final = 2


class PostgresNotices:
    """Tells owners what no rule tells them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._clean_at = clock.monotonic()

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever: summaries of past minutes, and old rows out."""
        while True:
            beat()
            try:
                await self.summarise()
                if self._clock.monotonic() >= self._clean_at:
                    await self._clean()
                    self._clean_at = self._clock.monotonic() + CLEAN_SECONDS
            except Retryable as error:
                log.warning("summaries wait for the store", error=str(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def summarise(self) -> int:
        """One `alert.summary` per user and past minute in which events were stored in silence; -> how many."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                "UPDATE budgets b SET summarised = true FROM (SELECT user_id, minute FROM budgets WHERE suppressed > 0"
                " AND NOT summarised AND minute < date_trunc('minute', now()) ORDER BY minute LIMIT 500 FOR UPDATE SKIP LOCKED) f"
                " WHERE b.user_id = f.user_id AND b.minute = f.minute RETURNING b.user_id, b.minute, b.suppressed, b.used"
            )
            for row in found:
                await self._tell(
                    conn,
                    "alert.summary",
                    row["user_id"],
                    f"summary:{row['minute'].isoformat()}",
                    f"{row['suppressed']} more alerts fired in this minute; see your alert events",
                    {
                        "suppressed": row["suppressed"],
                        "fired": row["used"],
                        "minute": row["minute"].isoformat(),
                    },
                    row["minute"],
                )
        return len(found)

    async def endpoint_disabled(self, due: Due, reason: str) -> None:
        """Tell the owner that his endpoint gets nothing any more."""
        now = self._clock.now_ms()
        async with engine(self._db) as conn:
            await self._tell(
                conn,
                "alert.error",
                due.user_id,
                f"disabled:{due.webhook_id}:{now}",
                f"Your webhook was disabled: {reason}",
                {"kind": "endpoint.disabled", "webhook_id": due.webhook_id, "reason": reason},
                None,
            )

    async def new_listings(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which (symbol, venue) were never seen before. The very first look makes the start, and nothing new."""
        if not pairs:
            return []
        async with engine(self._db) as conn:
            is_first = not await conn.fetchval("SELECT EXISTS (SELECT FROM listings)")
            found = await conn.fetch(
                "INSERT INTO listings (symbol, venue) SELECT * FROM unnest($1::text[], $2::text[])"
                " ON CONFLICT DO NOTHING RETURNING symbol, venue",
                [symbol for symbol, _ in pairs],
                [venue for _, venue in pairs],
            )
        return [] if is_first else [(row["symbol"], row["venue"]) for row in found]

    async def _tell(
        self, conn: Connection, kind: AlertEventType, user_id: str, name: str, text: str, data: dict[str, Any],
        at: datetime | None,
    ) -> None:  # fmt: skip
        now_ms = self._clock.now_ms() if at is None else round(at.timestamp() * 1000)
        key = hashlib.sha256(f"{user_id}|{name}".encode()).hexdigest()
        event = AlertEvent(
            id=new_id("ae", self._clock.now_ms()),
            type=kind,
            user_id=user_id,
            rule_id="",
            dedupe_key=key,
            at_ms=now_ms,
            symbol="",
            source="",
            condition=kind.removeprefix("alert."),
            message=text,
            data=data,
        )
        made = await conn.fetchval(
            "INSERT INTO events (id, user_id, type, dedupe_key, at, symbol, source, condition, message, data)"
            " VALUES ($1, $2, $3, $4, to_timestamp($5::float8 / 1000), '', '', $6, $7, $8)"
            " ON CONFLICT (dedupe_key) DO NOTHING RETURNING id",
            event.id,
            user_id,
            kind,
            key,
            float(now_ms),
            event.condition,
            text,
            data,
        )
        if made is not None:
            await conn.execute(
                "INSERT INTO outbox (event_id, topic, key, payload) VALUES ($1, $2, $3, $4)",
                event.id,
                ALERT_EVENTS.type_name,
                routing_key(user_id, ""),
                msgspec.msgpack.encode(event),
            )
            await conn.execute("SELECT pg_notify($1, '')", channel_of(self._db.schema))

    async def _clean(self) -> None:
        async with engine(self._db) as conn:
            await conn.execute(
                "DELETE FROM budgets WHERE minute < now() - make_interval(days => $1)", KEEP_BUDGETS_DAYS
            )
            # Ids begin with the time: the primary key finds the oldest.
            oldest = new_id("ae", self._clock.now_ms() - KEEP_EVENTS_DAYS * 86_400_000)
            await conn.execute(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id < $1 ORDER BY id LIMIT 2000)",
                oldest,
            )
