"""Users, sessions and mail tokens in schema `identity`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptopulse.common.database.pool import Database
from cryptopulse.gateway.domain.accounts import RefreshToken, Session, User

_USER = (
    "id::text, email, password_hash, tier, is_admin, verified_at, failed_logins, locked_until, created_at, "
    "disabled_at"
)
_SESSION = "id::text, user_id::text, device, address, created_at, last_used_at, ends_at, revoked_at"


class PostgresAccounts:
    """Stores users and their sessions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add_user(self, user: User) -> bool:
        """Store a user; False when the address is taken."""
        async with self._db.connection() as conn:
            stored = await conn.fetchval(
                """INSERT INTO users (id, email, password_hash, tier, created_at, password_at)
                VALUES ($1::uuid, $2, $3, $4, $5, $5) ON CONFLICT (email) DO NOTHING RETURNING true""",
                user.id,
                user.email,
                user.password_hash,
                user.tier,
                user.created_at,
            )
        return bool(stored)

    async def user_by_email(self, email: str) -> User | None:
        """The user of an address in lower case."""
        async with self._db.connection() as conn:
            row = await conn.fetchrow(f"SELECT {_USER} FROM users WHERE email = $1", email)  # noqa: S608 - a constant list of columns
        return None if row is None else User(**row)

    async def user_by_id(self, user_id: str) -> User | None:
        """The user of an id."""
        async with self._db.connection() as conn:
            row = await conn.fetchrow(f"SELECT {_USER} FROM users WHERE id = $1::uuid", user_id)  # noqa: S608 - a constant list of columns
        return None if row is None else User(**row)

    async def record_failure(self, user_id: str, locked_until: datetime | None) -> None:
        """Count a wrong password."""
        async with self._db.connection() as conn:
            await conn.execute(
                """UPDATE users SET failed_logins = failed_logins + 1, locked_until = coalesce($2, locked_until)
                WHERE id = $1::uuid""",
                user_id,
                locked_until,
            )

    async def record_success(self, user_id: str, password_hash: str | None) -> None:
        """Forget wrong passwords; store a renewed hash when one is given."""
        async with self._db.connection() as conn:
            await conn.execute(
                """UPDATE users SET failed_logins = 0, locked_until = NULL, password_hash = coalesce($2, password_hash)
                WHERE id = $1::uuid""",
                user_id,
                password_hash,
            )

    async def set_password(self, user_id: str, password_hash: str, at: datetime) -> None:
        """Store a new password; locks end."""
        async with self._db.connection() as conn:
            await conn.execute(
                """UPDATE users SET password_hash = $2, password_at = $3, failed_logins = 0, locked_until = NULL
                WHERE id = $1::uuid""",
                user_id,
                password_hash,
                at,
            )

    async def set_verified(self, user_id: str, at: datetime) -> None:
        """The address is proven."""
        async with self._db.connection() as conn:
            await conn.execute(
                "UPDATE users SET verified_at = coalesce(verified_at, $2) WHERE id = $1::uuid", user_id, at
            )

    async def set_admin(self, email: str, is_admin: bool) -> str | None:
        """Give or take the right to `/v1/admin`; the user's id, None when nobody has the address.

        Tokens carry it from the next login or refresh on: who takes it ends the user's sessions as well.
        """
        async with self._db.connection() as conn:
            found = await conn.fetchval(
                "UPDATE users SET is_admin = $2 WHERE email = $1 RETURNING id::text", email, is_admin
            )
        return None if found is None else str(found)

    async def set_disabled(self, user_id: str, at: datetime | None) -> None:
        """Keep a user out, since the first time that was asked for, or let him in again with None."""
        async with self._db.connection() as conn:
            await conn.execute(
                """UPDATE users SET disabled_at = CASE WHEN $2::timestamptz IS NOT NULL THEN coalesce(disabled_at, $2) END
                WHERE id = $1::uuid""",
                user_id,
                at,
            )

    async def list_users(self, limit: int, after: tuple[datetime, str] | None) -> list[User]:
        """Users, newest first, after a position (created, id)."""
        at, ident = after or (None, None)
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                f"SELECT {_USER} FROM users WHERE ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid)) "  # noqa: S608 - constants
                "ORDER BY created_at DESC, id DESC LIMIT $1",
                limit,
                at,
                ident,
            )
        return [User(**row) for row in rows]

    async def delete_user(self, user_id: str) -> list[str]:
        """Delete a user with everything that hangs on him; ids of sessions and keys that lived."""
        async with self._db.transaction() as conn:
            sessions = await conn.fetch(
                "SELECT id::text FROM sessions WHERE user_id = $1::uuid AND revoked_at IS NULL", user_id
            )
            keys = await conn.fetch("DELETE FROM api_keys WHERE user_id = $1 RETURNING id", user_id)
            await conn.execute("DELETE FROM users WHERE id = $1::uuid", user_id)
        return [row["id"] for row in (*sessions, *keys)]

    async def add_session(self, session: Session, token_hash: bytes, expires_at: datetime) -> None:
        """Store a session and its first refresh token."""
        async with self._db.transaction() as conn:
            await conn.execute(
                """INSERT INTO sessions (id, user_id, device, address, created_at, last_used_at, ends_at)
                VALUES ($1::uuid, $2::uuid, $3, $4, $5, $5, $6)""",
                session.id,
                session.user_id,
                session.device,
                session.address,
                session.created_at,
                session.ends_at,
            )
            await self._add_token(conn, token_hash, session.id, session.created_at, expires_at)

    async def _add_token(
        self, conn: Any, token_hash: bytes, session_id: str, at: datetime, expires_at: datetime
    ) -> None:
        await conn.execute(
            """INSERT INTO refresh_tokens (hash, session_id, issued_at, expires_at) VALUES ($1, $2::uuid, $3, $4)
            ON CONFLICT (hash) DO NOTHING""",
            token_hash,
            session_id,
            at,
            expires_at,
        )

    async def refresh_token(self, token_hash: bytes) -> RefreshToken | None:
        """A refresh token with its session."""
        async with self._db.connection() as conn:
            row = await conn.fetchrow(
                f"SELECT {_prefixed('s', _SESSION)}, t.expires_at, t.spent_at FROM refresh_tokens t "  # noqa: S608 - constants
                "JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1",
                token_hash,
            )
        if row is None:
            return None
        fields = dict(row)
        expires_at, spent_at = fields.pop("expires_at"), fields.pop("spent_at")
        return RefreshToken(Session(**fields), expires_at, spent_at)

    async def rotate(
        self, spent: bytes, successor: bytes, session_id: str, at: datetime, expires_at: datetime
    ) -> None:
        """Spend one token, store the next; the first time of spending stays."""
        async with self._db.transaction() as conn:
            await conn.execute(
                "UPDATE refresh_tokens SET spent_at = coalesce(spent_at, $2) WHERE hash = $1", spent, at
            )
            await self._add_token(conn, successor, session_id, at, expires_at)
            await conn.execute("UPDATE sessions SET last_used_at = $2 WHERE id = $1::uuid", session_id, at)

    async def sessions(self, user_id: str) -> list[Session]:
        """The newest hundred sessions of a user."""
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                f"SELECT {_SESSION} FROM sessions WHERE user_id = $1::uuid ORDER BY created_at DESC LIMIT 100",  # noqa: S608 - constants
                user_id,
            )
        return [Session(**row) for row in rows]

    async def revoke_sessions(
        self, user_id: str, reason: str, at: datetime, *, only: str | None = None, keep: str | None = None
    ) -> list[str]:
        """End living sessions of a user: one, or all but one."""
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                """UPDATE sessions SET revoked_at = $3, revoked_reason = $2
                WHERE user_id::text = $1 AND revoked_at IS NULL
                AND ($4::text IS NULL OR id::text = $4) AND ($5::text IS NULL OR id::text <> $5)
                RETURNING id::text""",
                user_id,
                reason,
                at,
                only,
                keep,
            )
        return [row["id"] for row in rows]

    async def add_mail_token(
        self, token_hash: bytes, user_id: str, purpose: str, expires_at: datetime
    ) -> None:
        """Store a single-use token; earlier ones of the same purpose are void."""
        async with self._db.transaction() as conn:
            await conn.execute(
                "DELETE FROM mail_tokens WHERE user_id = $1::uuid AND purpose = $2", user_id, purpose
            )
            await conn.execute(
                "INSERT INTO mail_tokens (hash, user_id, purpose, expires_at) VALUES ($1, $2::uuid, $3, $4)",
                token_hash,
                user_id,
                purpose,
                expires_at,
            )

    async def use_mail_token(self, token_hash: bytes, purpose: str, at: datetime) -> str | None:
        """The user of a fresh token, once."""
        async with self._db.connection() as conn:
            found = await conn.fetchval(
                """UPDATE mail_tokens SET used_at = $3 WHERE hash = $1 AND purpose = $2 AND used_at IS NULL
                AND expires_at > $3 RETURNING user_id::text""",
                token_hash,
                purpose,
                at,
            )
        return None if found is None else str(found)

    async def clean(self, before: datetime) -> int:
        """Delete sessions and tokens that ended before a time; how many sessions."""
        async with self._db.connection() as conn:
            done = await conn.fetch(
                "DELETE FROM sessions WHERE ends_at < $1 OR revoked_at < $1 RETURNING 1", before
            )
            await conn.execute("DELETE FROM mail_tokens WHERE expires_at < $1", before)
        return len(done)


def _prefixed(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns.split(", "))
