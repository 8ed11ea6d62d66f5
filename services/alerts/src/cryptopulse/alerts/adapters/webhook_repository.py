"""Webhook endpoints and their deliveries, as their owner manages them: the owner is in every statement."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptopulse.alerts.adapters.firing_store import DELIVERIES_CHANNEL
from cryptopulse.alerts.application.ports import NewWebhook
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Conflict, LimitExceeded, NotFound, PreconditionFailed

_COLUMNS: Final = (
    "id, user_id, url, description, event_types, enabled, disabled_reason, failures, failing_since, open_until,"
    " last_success_at, version, created_at, updated_at"
)
_DELIVERY: Final = (
    "id, webhook_id, event_id, message_id, event_type, status, attempts, next_attempt_at, last_status, last_error,"
    " created_at, finished_at"
)

Row = Mapping[str, Any]


class PostgresWebhookRepository:
    """Endpoints and deliveries of a user. Everything not his is `NotFound`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, user_id: str, hook: NewWebhook, *, cap: int) -> Row:
        """Store an endpoint. Raises `Conflict` when the user has one with this URL, `LimitExceeded` over `cap`."""
        async with self._db.transaction(user_id) as conn:
            row = await _insert(conn, user_id, hook, cap)
        if row is None:
            raise Conflict("You have a webhook with this URL already.", code="duplicate-webhook")
        return row

    async def find_or_create(self, user_id: str, hook: NewWebhook, *, cap: int) -> tuple[Row, bool]:
        """The user's endpoint with this URL, made when there is none; -> (endpoint, whether it is new)."""
        async with self._db.transaction(user_id) as conn:
            row = await _insert(conn, user_id, hook, cap)
            if row is not None:
                return row, True
            found: Row = await conn.fetchrow(
                f"SELECT {_COLUMNS} FROM webhooks WHERE user_id = $1 AND url = $2",  # noqa: S608 - fixed columns
                user_id,
                hook.url,
            )
            return found, False

    async def get(self, user_id: str, webhook_id: str) -> Row:
        """One endpoint. Raises `NotFound`."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            return await _own(conn, user_id, webhook_id)

    async def page(self, user_id: str, *, before: tuple[datetime, str] | None, limit: int) -> list[Row]:
        """Newest first."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            return await conn.fetch(
                f"SELECT {_COLUMNS} FROM webhooks WHERE user_id = $1"  # noqa: S608 - fixed columns
                " AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3)) ORDER BY created_at DESC, id DESC LIMIT $4",
                user_id,
                before[0] if before else None,
                before[1] if before else None,
                limit,
            )

    async def update(
        self, user_id: str, webhook_id: str, *, expected: int | None, url: str | None = None,
        description: str | None = None, event_types: list[str] | None = None, enabled: bool | None = None,
    ) -> Row:  # fmt: skip
        """Change what is given. Enabling clears what led to the disabling. Raises `NotFound`, `PreconditionFailed`, `Conflict`."""
        async with self._db.transaction(user_id) as conn:
            known = await _own(conn, user_id, webhook_id)
            if expected is not None and known["version"] != expected:
                raise PreconditionFailed(f"The webhook is at version {known['version']} by now.")
            if url is not None and await conn.fetchval(
                "SELECT EXISTS (SELECT FROM webhooks WHERE user_id = $1 AND url = $2 AND id <> $3)",
                user_id,
                url,
                webhook_id,
            ):
                raise Conflict("You have a webhook with this URL already.", code="duplicate-webhook")
            row: Row = await conn.fetchrow(
                "UPDATE webhooks SET version = version + 1, updated_at = now(), url = coalesce($3, url),"  # noqa: S608 - fixed columns
                " description = coalesce($4, description), event_types = coalesce($5, event_types),"
                " enabled = coalesce($6, enabled),"
                " disabled_reason = CASE WHEN $6 THEN NULL WHEN NOT $6 THEN 'by its owner' ELSE disabled_reason END,"
                " failures = CASE WHEN $6 THEN 0 ELSE failures END,"
                " failed_messages = CASE WHEN $6 THEN 0 ELSE failed_messages END,"
                " failing_since = CASE WHEN $6 THEN NULL ELSE failing_since END,"
                " open_until = CASE WHEN $6 THEN NULL ELSE open_until END"
                f" WHERE id = $1 AND user_id = $2 RETURNING {_COLUMNS}",
                webhook_id,
                user_id,
                url,
                description,
                event_types,
                enabled,
            )
            await _wake(conn)
            return row

    async def delete(self, user_id: str, webhook_id: str, *, expected: int | None) -> None:
        """Delete an endpoint with its log; rules that named it go on without. Raises `NotFound`, `PreconditionFailed`."""
        async with self._db.transaction(user_id) as conn:
            known = await _own(conn, user_id, webhook_id)
            if expected is not None and known["version"] != expected:
                raise PreconditionFailed(f"The webhook is at version {known['version']} by now.")
            await conn.execute(
                "UPDATE rules SET webhook_ids = array_remove(webhook_ids, $2) WHERE user_id = $1 AND $2 = ANY (webhook_ids)",
                user_id,
                webhook_id,
            )
            await conn.execute("DELETE FROM webhooks WHERE id = $1 AND user_id = $2", webhook_id, user_id)

    async def rotate(self, user_id: str, webhook_id: str, secret: bytes, *, overlap_seconds: int) -> datetime:
        """Sign with `secret` from now on, and with the old one beside it for a while; -> until when."""
        async with self._db.transaction(user_id) as conn:
            await _own(conn, user_id, webhook_id)
            until: datetime = await conn.fetchval(
                "UPDATE webhooks SET old_secret = secret, old_until = now() + make_interval(secs => $4), secret = $3,"
                " version = version + 1, updated_at = now() WHERE id = $1 AND user_id = $2 RETURNING old_until",
                webhook_id,
                user_id,
                secret,
                float(overlap_seconds),
            )
            return until

    async def enqueue(
        self, user_id: str, webhook_id: str, delivery_id: str, message_id: str, kind: str, body: bytes
    ) -> Row:
        """A message for one endpoint (a test). Raises `NotFound`, `Conflict` when the endpoint is disabled."""
        async with self._db.transaction(user_id) as conn:
            known = await _own(conn, user_id, webhook_id)
            if not known["enabled"]:
                raise Conflict("The webhook is disabled: enable it first.", code="webhook-disabled")
            row: Row = await conn.fetchrow(
                "INSERT INTO deliveries (id, webhook_id, user_id, message_id, event_type, event_at, body)"  # noqa: S608 - fixed columns
                f" VALUES ($1, $2, $3, $4, $5, now(), $6) RETURNING {_DELIVERY}",
                delivery_id,
                webhook_id,
                user_id,
                message_id,
                kind,
                body,
            )
            await _wake(conn)
            return row

    async def deliveries(
        self,
        user_id: str,
        webhook_id: str,
        *,
        status: str | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Row]:
        """The delivery log, newest first. Raises `NotFound`."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            await _own(conn, user_id, webhook_id)
            return await conn.fetch(
                f"SELECT {_DELIVERY} FROM deliveries WHERE webhook_id = $1 AND user_id = $2"  # noqa: S608 - fixed columns
                " AND ($3::text IS NULL OR status = $3)"
                " AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5)) ORDER BY created_at DESC, id DESC LIMIT $6",
                webhook_id,
                user_id,
                status,
                before[0] if before else None,
                before[1] if before else None,
                limit,
            )

    async def delivery(self, user_id: str, webhook_id: str, delivery_id: str) -> tuple[Row, list[Row]]:
        """One delivery and its attempts. Raises `NotFound`."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            row = await conn.fetchrow(
                f"SELECT {_DELIVERY} FROM deliveries WHERE id = $1 AND webhook_id = $2 AND user_id = $3",  # noqa: S608 - fixed columns
                delivery_id,
                webhook_id,
                user_id,
            )
            if row is None:
                raise NotFound("There is no such delivery.")
            log = await conn.fetch(
                "SELECT number, at, status, duration_ms, error, answer FROM attempts WHERE delivery_id = $1 ORDER BY number",
                delivery_id,
            )
        return row, log

    async def replay(self, user_id: str, webhook_id: str, delivery_id: str) -> Row:
        """Send one delivery again, from the start of the schedule, under the same message id."""
        async with self._db.transaction(user_id) as conn:
            known = await _own(conn, user_id, webhook_id)
            if not known["enabled"]:
                raise Conflict("The webhook is disabled: enable it first.", code="webhook-disabled")
            row = await conn.fetchrow(
                "UPDATE deliveries SET status = 'pending', next_attempt_at = now(), round_attempts = 0, finished_at = NULL,"  # noqa: S608 - fixed columns
                " leased_until = NULL, event_at = now() WHERE id = $1 AND webhook_id = $2 AND user_id = $3"
                f" AND status <> 'delivering' RETURNING {_DELIVERY}",
                delivery_id,
                webhook_id,
                user_id,
            )
            if row is None and await conn.fetchval(
                "SELECT EXISTS (SELECT FROM deliveries WHERE id = $1 AND webhook_id = $2 AND user_id = $3)",
                delivery_id,
                webhook_id,
                user_id,
            ):
                raise Conflict("The delivery is under way.", code="delivery-under-way")
            if row is None:
                raise NotFound("There is no such delivery.")
            await _wake(conn)
            found: Row = row
            return found

    async def replay_range(
        self,
        user_id: str,
        webhook_id: str,
        *,
        since: datetime,
        until: datetime,
        only_failed: bool,
        limit: int = 10_000,
    ) -> int:
        """Send the deliveries made in [since, until) again; -> how many."""
        async with self._db.transaction(user_id) as conn:
            known = await _own(conn, user_id, webhook_id)
            if not known["enabled"]:
                raise Conflict("The webhook is disabled: enable it first.", code="webhook-disabled")
            done = await conn.fetch(
                "UPDATE deliveries SET status = 'pending', next_attempt_at = now(), round_attempts = 0, finished_at = NULL,"
                " leased_until = NULL, event_at = now() WHERE id IN (SELECT id FROM deliveries WHERE webhook_id = $1 AND user_id = $2"
                " AND created_at >= $3 AND created_at < $4 AND status = ANY ($5::text[]) ORDER BY created_at LIMIT $6) RETURNING id",
                webhook_id,
                user_id,
                since,
                until,
                ["failed", "exhausted", "cancelled"] + ([] if only_failed else ["delivered"]),
                limit,
            )
            await _wake(conn)
            return len(done)


async def _insert(conn: Connection, user_id: str, hook: NewWebhook, cap: int) -> Row | None:
    """The new row, None when the user has this URL already."""
    count = await conn.fetchval(
        "SELECT count(*) FROM webhooks WHERE user_id = $1 AND url <> $2", user_id, hook.url
    )
    if count >= cap:
        raise LimitExceeded(f"At most {cap} webhooks.", code="too-many-webhooks")
    row: Row | None = await conn.fetchrow(
        "INSERT INTO webhooks (id, user_id, url, description, event_types, secret) VALUES ($1, $2, $3, $4, $5, $6)"  # noqa: S608 - fixed columns
        f" ON CONFLICT (user_id, url) DO NOTHING RETURNING {_COLUMNS}",
        hook.id,
        user_id,
        hook.url,
        hook.description,
        hook.event_types,
        hook.secret,
    )
    return row


async def _own(conn: Connection, user_id: str, webhook_id: str) -> Row:
    row: Row | None = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM webhooks WHERE id = $1 AND user_id = $2",  # noqa: S608 - fixed columns
        webhook_id,
        user_id,
    )
    if row is None:
        raise NotFound("There is no such webhook.")
    return row


async def _wake(conn: Connection) -> None:
    await conn.execute("SELECT pg_notify($1, '')", DELIVERIES_CHANNEL)
