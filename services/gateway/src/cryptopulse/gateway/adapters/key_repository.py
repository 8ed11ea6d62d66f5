"""API keys and idempotent answers in schema `identity`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.database.pool import Database
from cryptopulse.gateway.application.ports import KeyRecord, StoredAnswer

_KEY: Final = (
    "id, user_id, name, hash, scopes, tier, addresses, created_at, expires_at, revoked_at, last_used_at, "
    "last_address, replaces"
)
_OWNER: Final = "CASE WHEN user_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN user_id::uuid END"
_CHANGEABLE: Final = frozenset({"name", "scopes", "addresses", "expires_at", "revoked_at"})
KEPT: Final = timedelta(hours=24)
IN_FLIGHT: Final = timedelta(seconds=60)
"""A claim whose call never ended may be taken over after this."""


class PostgresKeys:
    """Stores API keys."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, record: KeyRecord) -> None:
        """Store a new key."""
        async with self._db.connection() as conn:
            await conn.execute(
                """INSERT INTO api_keys (id, user_id, name, hash, scopes, tier, addresses, created_at, expires_at, replaces)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
                record.id,
                record.user_id,
                record.name,
                record.hash,
                record.scopes,
                record.tier,
                record.addresses,
                record.created_at,
                record.expires_at,
                record.replaces,
            )

    async def find(self, key_id: str) -> KeyRecord | None:
        """The key of an id, and whether its owner is disabled. An owner from elsewhere has no account, so is not."""
        async with self._db.connection() as conn:
            row = await conn.fetchrow(
                f"SELECT {_KEY}, EXISTS (SELECT FROM users WHERE disabled_at IS NOT NULL AND users.id = {_OWNER}) "  # noqa: S608 - constants
                "AS is_owner_disabled FROM api_keys WHERE id = $1",
                key_id,
            )
        return None if row is None else KeyRecord(**row)

    async def of_user(self, user_id: str, limit: int, after: tuple[datetime, str] | None) -> list[KeyRecord]:
        """Keys of a user that are not revoked, newest first, after a position."""
        at, ident = after or (None, None)
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                f"SELECT {_KEY} FROM api_keys WHERE user_id = $1 AND (revoked_at IS NULL OR revoked_at > now()) "  # noqa: S608 - constants
                "AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4)) "
                "ORDER BY created_at DESC, id DESC LIMIT $2",
                user_id,
                limit,
                at,
                ident,
            )
        return [KeyRecord(**row) for row in rows]

    async def count(self, user_id: str) -> int:
        """How many keys of a user are not revoked."""
        async with self._db.connection() as conn:
            found = await conn.fetchval(
                "SELECT count(*) FROM api_keys WHERE user_id = $1 AND (revoked_at IS NULL OR revoked_at > now())",
                user_id,
            )
        return int(found)

    async def change(self, key_id: str, user_id: str, changes: Mapping[str, Any]) -> KeyRecord | None:
        """Change the named fields of a user's key."""
        unknown = set(changes) - _CHANGEABLE
        if unknown:
            raise ValueError(f"not changeable: {sorted(unknown)}")
        columns = sorted(changes)
        text = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, start=3))
        async with self._db.connection() as conn:
            row = await conn.fetchrow(
                f"UPDATE api_keys SET {text} WHERE id = $1 AND user_id = $2 RETURNING {_KEY}",  # noqa: S608 - names from a fixed set
                key_id,
                user_id,
                *(changes[name] for name in columns),
            )
        return None if row is None else KeyRecord(**row)

    async def used(self, key_id: str, at: datetime, address: str) -> None:
        """Note the last use."""
        async with self._db.connection() as conn:
            await conn.execute(
                "UPDATE api_keys SET last_used_at = $2, last_address = $3 WHERE id = $1", key_id, at, address
            )


class PostgresIdempotency:
    """Keeps answers for a day."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)

    async def claim(self, principal: str, key: str, request_hash: bytes) -> StoredAnswer | None:
        """As the port says; expired and abandoned claims are taken over."""
        now = self._now()
        async with self._db.connection() as conn:
            ours = await conn.fetchval(
                """INSERT INTO idempotency AS held (principal, key, request_hash, created_at, expires_at)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (principal, key) DO UPDATE SET request_hash = excluded.request_hash, status = NULL,
                    headers = NULL, body = NULL, created_at = excluded.created_at, expires_at = excluded.expires_at
                WHERE held.expires_at <= $4
                    OR (held.status IS NULL AND held.created_at <= $6 AND held.request_hash = excluded.request_hash)
                RETURNING true""",
                principal,
                key,
                request_hash,
                now,
                now + KEPT,
                now - IN_FLIGHT,
            )
            if ours:
                return None
            row = await conn.fetchrow(
                "SELECT request_hash, status, headers, body FROM idempotency WHERE principal = $1 AND key = $2",
                principal,
                key,
            )
        if row is None:
            return StoredAnswer(request_hash, None, {}, b"")
        return StoredAnswer(row["request_hash"], row["status"], row["headers"] or {}, row["body"] or b"")

    async def finish(self, principal: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer."""
        async with self._db.connection() as conn:
            await conn.execute(
                "UPDATE idempotency SET status = $3, headers = $4, body = $5 WHERE principal = $1 AND key = $2",
                principal,
                key,
                answer.status,
                answer.headers,
                answer.body,
            )

    async def release(self, principal: str, key: str) -> None:
        """Give a claim back."""
        async with self._db.connection() as conn:
            await conn.execute(
                "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND status IS NULL", principal, key
            )

    async def clean(self) -> None:
        """Delete what has expired."""
        async with self._db.connection() as conn:
            await conn.execute("DELETE FROM idempotency WHERE expires_at < $1", self._now())
