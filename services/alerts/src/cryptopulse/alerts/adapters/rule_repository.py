"""Rules and events of one user in Postgres: the owner is in every statement, and row-level security behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptopulse.alerts.adapters import rows
from cryptopulse.alerts.application.ports import EventRow, NewRule, RuleRow
from cryptopulse.alerts.domain.definition import home_base
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Invalid, LimitExceeded, NotFound, PreconditionFailed

RULES_CHANNEL: Final = "alerts_rules"
_OVER: Final = "('completed', 'expired')"
_COLUMNS: Final = rows.RULE_COLUMNS


class PostgresRuleRepository:
    """Rules of a user. Everything not his is `NotFound`, exactly like what is not there."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, user_id: str, tier: str, rule: NewRule, *, cap: int) -> RuleRow:
        """Store a rule, unless the user has `cap` unfinished ones. Raises `LimitExceeded`, `Invalid` for a webhook not his."""
        async with self._db.transaction(user_id) as conn:
            # One writer per user at a time, so that two requests cannot both take the last place.
            await conn.execute(
                "INSERT INTO owners (user_id, tier) VALUES ($1, $2)"
                " ON CONFLICT (user_id) DO UPDATE SET tier = excluded.tier, updated_at = now()",
                user_id,
                tier,
            )
            count = await conn.fetchval(
                f"SELECT count(*) FROM rules WHERE user_id = $1 AND state NOT IN {_OVER}",  # noqa: S608 - fixed text
                user_id,
            )
            if count >= cap:
                raise LimitExceeded(
                    f"Your plan holds {cap} open alerts: delete some first.", code="too-many-alerts"
                )
            await _check_webhooks(conn, user_id, rule.webhook_ids)
            row = await conn.fetchrow(
                "INSERT INTO rules (id, user_id, state, symbol, type, home, definition, runtime, webhook_ids, expires_at,"  # noqa: S608 - fixed columns
                " created_price, armed_at) VALUES ($1, $2, 'armed', $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp())"
                f" RETURNING {_COLUMNS}",
                rule.id,
                user_id,
                rule.definition.symbol,
                rule.definition.condition.type,
                home_base(rule.definition),
                rule.definition.model_dump(mode="json", exclude_none=True, by_alias=True),
                rule.runtime,
                rule.webhook_ids,
                rule.expires_at,
                rule.created_price,
            )
            await _announce(conn, rule.id)
        return rows.rule_row(row)

    async def get(self, user_id: str, rule_id: str) -> RuleRow:
        """One rule. Raises `NotFound`."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            row = await conn.fetchrow(
                f"SELECT {_COLUMNS} FROM rules WHERE id = $1 AND user_id = $2",  # noqa: S608 - fixed columns
                rule_id,
                user_id,
            )
        if row is None:
            raise not_found()
        return rows.rule_row(row)

    async def page(
        self, user_id: str, *, state: str | None, symbol: str | None, kind: str | None,
        before: tuple[datetime, str] | None, limit: int,
    ) -> list[RuleRow]:  # fmt: skip
        """Newest first, before the given (created_at, id)."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            found = await conn.fetch(
                f"SELECT {_COLUMNS} FROM rules WHERE user_id = $1"  # noqa: S608 - fixed columns
                " AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR symbol = $3)"
                " AND ($4::text IS NULL OR type = $4)"
                " AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6))"
                " ORDER BY created_at DESC, id DESC LIMIT $7",
                user_id,
                state,
                symbol,
                kind,
                before[0] if before else None,
                before[1] if before else None,
                limit,
            )
        return [rows.rule_row(row) for row in found]

    async def replace(self, user_id: str, rule: RuleRow, *, expected: int | None, rearm: bool) -> RuleRow:
        """Store a changed rule over version `rule.version`. With `rearm` it begins anew.

        Raises `PreconditionFailed` when `expected` (the client's) or the version that was read is no longer the newest.
        """
        if expected is not None and expected != rule.version:
            raise PreconditionFailed(f"The alert is at version {rule.version} by now.")
        async with self._db.transaction(user_id) as conn:
            await _check_webhooks(conn, user_id, rule.webhook_ids)
            row = await conn.fetchrow(
                "UPDATE rules SET version = version + 1, state = $4, symbol = $5, type = $6, home = $7, definition = $8,"  # noqa: S608 - fixed columns
                " runtime = $9, webhook_ids = $10, snoozed_until = $11, expires_at = $12, created_price = $13,"
                " armed_at = CASE WHEN $14 THEN clock_timestamp() ELSE armed_at END, updated_at = now()"
                f" WHERE id = $1 AND user_id = $2 AND version = $3 RETURNING {_COLUMNS}",
                rule.id,
                user_id,
                rule.version,
                rule.state,
                rule.definition.symbol,
                rule.definition.condition.type,
                home_base(rule.definition),
                rule.definition.model_dump(mode="json", exclude_none=True, by_alias=True),
                rule.runtime,
                rule.webhook_ids,
                rule.snoozed_until,
                rule.expires_at,
                rule.created_price,
                rearm,
            )
            if row is not None:
                await _announce(conn, rule.id)
        if row is None:
            raise PreconditionFailed("The alert changed meanwhile: read it again.")
        return rows.rule_row(row)

    async def delete(self, user_id: str, rule_id: str, *, expected: int | None) -> None:
        """Delete a rule with its events. Raises `NotFound`, `PreconditionFailed`."""
        async with self._db.transaction(user_id) as conn:
            version = await conn.fetchval(
                "SELECT version FROM rules WHERE id = $1 AND user_id = $2 FOR UPDATE", rule_id, user_id
            )
            if version is None:
                raise not_found()
            if expected is not None and expected != version:
                raise PreconditionFailed(f"The alert is at version {version} by now.")
            await conn.execute("DELETE FROM rules WHERE id = $1 AND user_id = $2", rule_id, user_id)
            await _announce(conn, rule_id)

    async def events(
        self, user_id: str, *, rule_id: str | None, kind: str | None, since: datetime | None, unacked: bool,
        after: tuple[datetime, str] | None, newest_first: bool, limit: int,
    ) -> list[EventRow]:  # fmt: skip
        """Events of a user (of one rule), after the given (created_at, id) in the direction asked."""
        order, sign = ("DESC", "<") if newest_first else ("ASC", ">")
        async with self._db.transaction(user_id, readonly=True) as conn:
            if rule_id is not None and not await conn.fetchval(
                "SELECT EXISTS (SELECT FROM rules WHERE id = $1 AND user_id = $2)", rule_id, user_id
            ):
                raise not_found()
            found = await conn.fetch(
                f"SELECT {rows.EVENT_COLUMNS} FROM events WHERE user_id = $1"  # noqa: S608 - fixed columns and order
                " AND ($2::text IS NULL OR rule_id = $2) AND ($3::text IS NULL OR type = $3)"
                " AND ($4::timestamptz IS NULL OR created_at >= $4)"
                " AND (NOT $5 OR (acked_at IS NULL AND created_at > now() - interval '24 hours'))"
                f" AND ($6::timestamptz IS NULL OR (created_at, id) {sign} ($6, $7))"
                f" ORDER BY created_at {order}, id {order} LIMIT $8",
                user_id,
                rule_id,
                kind,
                since,
                unacked,
                after[0] if after else None,
                after[1] if after else None,
                limit,
            )
        return [rows.event_row(row) for row in found]

    async def event(self, user_id: str, event_id: str) -> EventRow:
        """One event. Raises `NotFound`."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            row = await conn.fetchrow(
                f"SELECT {rows.EVENT_COLUMNS} FROM events WHERE id = $1 AND user_id = $2",  # noqa: S608 - fixed columns
                event_id,
                user_id,
            )
        if row is None:
            raise NotFound("There is no such event.")
        return rows.event_row(row)

    async def acknowledge(self, user_id: str, event_id: str) -> datetime:
        """When the event was acknowledged: now, or before. Raises `NotFound`."""
        async with self._db.transaction(user_id) as conn:
            acked: datetime | None = await conn.fetchval(
                "UPDATE events SET acked_at = coalesce(acked_at, now()) WHERE id = $1 AND user_id = $2 RETURNING acked_at",
                event_id,
                user_id,
            )
        if acked is None:
            raise NotFound("There is no such event.")
        return acked


def not_found() -> NotFound:
    """The same words for what is not there and what is another's."""
    return NotFound("There is no such alert.")


async def _check_webhooks(conn: Connection, user_id: str, ids: Sequence[str]) -> None:
    if not ids:
        return
    known = await conn.fetchval(
        "SELECT count(*) FROM webhooks WHERE user_id = $1 AND id = ANY ($2::text[])", user_id, list(ids)
    )
    if known != len(set(ids)):
        raise Invalid("webhook_ids names an endpoint that is not there.", code="unknown-webhook")


async def _announce(conn: Connection, rule_id: str) -> None:
    """Tell the evaluating replicas, when this commits."""
    await conn.execute("SELECT pg_notify($1, $2)", RULES_CHANNEL, rule_id)
