"""Deliveries as the worker sees them: claimed with a lease, a few per endpoint, and finished with what follows (no broker)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cryptopulse.alerts.adapters.session import engine
from cryptopulse.alerts.application.ports import Answer, Due
from cryptopulse.alerts.domain.schedule import BREAK_AFTER, Outcome, gives_up, open_seconds
from cryptopulse.common.database.pool import Database

_CLAIM: Final = """
WITH hooks AS (
    SELECT w.id, w.url, w.secret, w.old_secret, w.old_until,
           CASE WHEN w.failures >= $4 THEN 1 ELSE $2 END
           - (SELECT count(*) FROM deliveries b WHERE b.webhook_id = w.id AND b.status = 'delivering'
              AND b.leased_until > now()) AS room
    FROM webhooks w
    WHERE w.enabled AND (w.open_until IS NULL OR w.open_until <= now())
      AND EXISTS (SELECT FROM deliveries d WHERE d.webhook_id = w.id AND d.status IN ('pending', 'delivering')
                  AND d.next_attempt_at <= now() AND (d.leased_until IS NULL OR d.leased_until <= now()))
    ORDER BY w.last_success_at NULLS FIRST LIMIT 500
    FOR UPDATE OF w SKIP LOCKED
), due AS (
    SELECT d.id FROM hooks h CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM deliveries d
        WHERE d.webhook_id = h.id AND d.status IN ('pending', 'delivering') AND d.next_attempt_at <= now()
          AND (d.leased_until IS NULL OR d.leased_until <= now())
        ORDER BY d.next_attempt_at, d.id LIMIT greatest(h.room, 0)
        FOR UPDATE OF d SKIP LOCKED
    ) d
    ORDER BY d.next_attempt_at LIMIT $1
)
UPDATE deliveries d
SET status = 'delivering', leased_until = now() + make_interval(secs => $5), leased_by = $3, attempts = attempts + 1,
    round_attempts = round_attempts + 1
FROM due, hooks h WHERE d.id = due.id AND h.id = d.webhook_id
RETURNING d.id, d.webhook_id, d.user_id, d.message_id, d.event_type, d.body, d.attempts, d.round_attempts, d.traceparent,
          extract(epoch FROM now() - d.event_at)::float8 AS age, h.url, h.secret,
          CASE WHEN h.old_until > now() THEN h.old_secret END AS old_secret
"""


class PostgresDeliveryStore:
    """The queue of deliveries. `per_endpoint` attempts at a time; one while an endpoint is on probation."""

    def __init__(self, db: Database, *, worker: str, per_endpoint: int, lease_seconds: float) -> None:
        self._db = db
        self._worker = worker
        self._per_endpoint = per_endpoint
        self._lease = lease_seconds

    async def claim(self, limit: int) -> list[Due]:
        """Up to `limit` deliveries that are due, ours until the lease ends."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                _CLAIM, limit, self._per_endpoint, self._worker, BREAK_AFTER, self._lease
            )
        return [
            Due(
                id=row["id"],
                webhook_id=row["webhook_id"],
                user_id=row["user_id"],
                url=row["url"],
                message_id=row["message_id"],
                event_type=row["event_type"],
                body=row["body"],
                attempts=row["attempts"],
                round_attempts=row["round_attempts"],
                age_seconds=row["age"],
                traceparent=row["traceparent"],
                secrets=[secret for secret in (row["secret"], row["old_secret"]) if secret],
            )
            for row in found
        ]

    async def finish(self, due: Due, answer: Answer, outcome: Outcome) -> str | None:
        """Log the attempt and what follows, for the delivery and its endpoint; -> why the endpoint was disabled, if it was.

        Nothing happens when the lease went to somebody else meanwhile.
        """
        status = {"delivered": "delivered", "retry": "pending", "exhausted": "exhausted", "gone": "failed"}[
            outcome.verdict
        ]
        async with engine(self._db) as conn:
            ours = await conn.fetchval(
                "UPDATE deliveries SET status = $3, leased_until = NULL, last_status = $4, last_error = $5,"
                " next_attempt_at = CASE WHEN $3 = 'pending' THEN now() + $6::interval END,"
                " finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END"
                " WHERE id = $1 AND leased_by = $2 AND status = 'delivering' AND attempts = $7 RETURNING id",
                due.id,
                self._worker,
                status,
                answer.status,
                answer.error,
                timedelta(seconds=outcome.pause_seconds),
                due.attempts,
            )
            if ours is None:
                return None
            await conn.execute(
                "INSERT INTO attempts (delivery_id, number, status, duration_ms, error, answer)"
                " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                due.id,
                due.attempts,
                answer.status,
                answer.duration_ms,
                answer.error,
                answer.text,
            )
            if outcome.verdict == "delivered":
                await conn.execute(
                    "UPDATE webhooks SET failures = 0, failed_messages = 0, failing_since = NULL, open_until = NULL,"
                    " last_success_at = now() WHERE id = $1",
                    due.webhook_id,
                )
                return None
            health = await conn.fetchrow(
                "UPDATE webhooks SET failures = failures + 1, failing_since = coalesce(failing_since, now()),"
                " failed_messages = failed_messages + $2 WHERE id = $1"
                " RETURNING failures, failed_messages, enabled, extract(epoch FROM now() - failing_since)::float8 AS failing_for",
                due.webhook_id,
                int(outcome.verdict != "retry"),
            )
            if health is None:
                return None
            rest = max(open_seconds(health["failures"]), outcome.pause_seconds if outcome.slow_down else 0.0)
            await conn.execute(
                "UPDATE webhooks SET open_until = CASE WHEN $2 > 0 THEN now() + make_interval(secs => $2) END WHERE id = $1",
                due.webhook_id,
                rest,
            )
            reason = None
            if outcome.verdict == "gone":
                reason = "the endpoint answered 410 Gone"
            elif gives_up(
                failing_for_seconds=health["failing_for"], failed_messages=health["failed_messages"]
            ):
                reason = "the endpoint failed for too long"
            if reason is None or not health["enabled"]:
                return None
            await conn.execute(
                "UPDATE webhooks SET enabled = false, disabled_reason = $2, version = version + 1, updated_at = now() WHERE id = $1",
                due.webhook_id,
                reason,
            )
            await conn.execute(
                "UPDATE deliveries SET status = 'cancelled', finished_at = now() WHERE webhook_id = $1 AND status = 'pending'",
                due.webhook_id,
            )
            return reason

    async def next_due_seconds(self) -> float | None:
        """How long until the next delivery is due, None when none waits."""
        async with engine(self._db) as conn:
            found: float | None = await conn.fetchval(
                "SELECT extract(epoch FROM min(greatest(d.next_attempt_at, coalesce(d.leased_until, d.next_attempt_at),"
                " coalesce(w.open_until, d.next_attempt_at))) - now())::float8"
                " FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id AND w.enabled"
                " WHERE d.status IN ('pending', 'delivering')"
            )
        return found

    async def clean(self, *, keep_days: int) -> None:
        """Forget finished deliveries of long ago, a bounded piece at a time."""
        async with engine(self._db) as conn:
            await conn.execute(
                "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE finished_at < now() - make_interval(days => $1)"
                " LIMIT 5000)",
                keep_days,
            )
