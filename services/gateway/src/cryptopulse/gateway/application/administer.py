"""What operators do about users and keys; every right that ends does so in all gateways within a second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import NotFound
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.application.ports import Accounts, KeyRecord, Keys, Revocations
from cryptopulse.gateway.domain.accounts import User, is_user_id

REASON = "operator"

log = get_logger(__name__)


class Administrators(Accounts, Protocol):
    """Accounts, with what only operators may change."""

    async def set_admin(self, email: str, is_admin: bool) -> str | None:
        """Give or take the right; the user's id, None when nobody has the address."""
        ...

    async def set_disabled(self, user_id: str, at: datetime | None) -> None:
        """Keep a user out since a time, the first one that was given; None lets him in again."""
        ...


class Administration:
    """The use cases. Users are named by their address, or by their id."""

    def __init__(self, accounts: Administrators, keys: Keys, revocations: Revocations, clock: Clock) -> None:
        self._accounts = accounts
        self._keys = keys
        self._revocations = revocations
        self._clock = clock

    async def users(self, limit: int) -> list[User]:
        """The newest users."""
        return await self._accounts.list_users(limit, None)

    async def user(self, name: str) -> User:
        """One user. Raises `NotFound`."""
        if "@" in name:
            found = await self._accounts.user_by_email(name.lower())
        else:
            found = await self._accounts.user_by_id(name) if is_user_id(name) else None
        if found is None:
            raise NotFound(f"nobody has the {'address' if '@' in name else 'id'} {name:.254}")
        return found

    async def set_admin(self, email: str, is_admin: bool) -> None:
        """Give the right to administer, from the next login on, or take it at once. Raises `NotFound`."""
        if await self._accounts.set_admin(email, is_admin) is None:
            raise NotFound(f"nobody has the address {email}")
        if not is_admin:
            await self.end_sessions(email)

    async def end_sessions(self, email: str) -> int:
        """End all sessions of a user; how many. Raises `NotFound`."""
        user = await self.user(email)
        ended = await self._accounts.revoke_sessions(user.id, REASON, self._now())
        await self._revocations.revoke(ended)
        return len(ended)

    async def disable(self, name: str, by: str) -> User:
        """Take every right of a user at once and keep him out until `enable`. Raises `NotFound`.

        His sessions end for good; his keys rest and his sockets close. Harmless when repeated, and to be repeated
        after `StoreUnavailable`: then it is stored, but not every gateway knows.
        """
        user = await self.user(name)
        await self._accounts.set_disabled(user.id, self._now())
        ended = await self._accounts.revoke_sessions(user.id, REASON, self._now())
        await self._revocations.revoke([*ended, f"user:{user.id}"])
        log.info("a user was disabled", user=user.id, by=by, sessions=len(ended))
        return await self.user(user.id)

    async def enable(self, name: str, by: str) -> User:
        """Let a disabled user log in and use his keys again; no session from before comes back. Raises `NotFound`."""
        user = await self.user(name)
        # A login that raced with `disable` may have left a session behind.
        ended = await self._accounts.revoke_sessions(user.id, REASON, self._now()) if user.disabled_at else []
        await self._revocations.revoke(ended)
        await self._accounts.set_disabled(user.id, None)
        await self._revocations.restore([f"user:{user.id}"])
        log.info("a user was enabled", user=user.id, by=by)
        return await self.user(user.id)

    async def keys(self, email: str, limit: int) -> list[KeyRecord]:
        """The newest keys of a user that are not revoked. Raises `NotFound`."""
        return await self._keys.of_user((await self.user(email)).id, limit, None)

    async def revoke_key(self, key_id: str) -> None:
        """End a key at once. Raises `NotFound`, also when it has ended before."""
        found = await self._keys.find(key_id)
        if found is None or (found.revoked_at is not None and found.revoked_at <= self._now()):
            raise NotFound(f"there is no key {key_id} that is alive")
        await self._keys.change(key_id, found.user_id, {"revoked_at": self._now()})
        await self._revocations.revoke([key_id])

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)
