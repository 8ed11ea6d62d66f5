"""API keys of a user: made, listed, changed, rotated with overlap, revoked. A secret is shown once and never stored."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from cryptopulse.gateway.application.ports import KeyRecord, Keys, Revocations
from cryptopulse.gateway.domain import api_keys, scopes

KEYS_PER_USER: Final = 50
OVERLAP_MAX_SECONDS: Final = 7 * 86_400


class KeyService:
    """The use cases of API keys. A key can never manage keys: only a user's own session can."""

    def __init__(self, store: Keys, revocations: Revocations, clock: Clock) -> None:
        self._store = store
        self._revocations = revocations
        self._clock = clock

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)

    async def create(
        self,
        identity: Identity,
        *,
        name: str,
        wanted: list[str],
        addresses: list[str],
        expires_at: datetime | None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret."""
        owner = self._owner(identity)
        self._check(identity, wanted, addresses, expires_at)
        if await self._store.count(owner) >= KEYS_PER_USER:
            raise Conflict(f"you have {KEYS_PER_USER} keys: delete one first", code="too-many-keys")
        return await self._store_new(owner, identity.tier, name, wanted, addresses, expires_at, None)

    async def _store_new(
        self,
        owner: str,
        tier: str,
        name: str,
        wanted: list[str],
        addresses: list[str],
        expires_at: datetime | None,
        replaces: str | None,
    ) -> tuple[KeyRecord, str]:
        key = api_keys.make(secrets.choice)
        record = KeyRecord(
            id=key.id,
            user_id=owner,
            name=name,
            hash=key.hash,
            scopes=sorted(set(wanted)),
            tier=tier,
            addresses=addresses,
            created_at=self._now(),
            expires_at=expires_at,
            replaces=replaces,
        )
        await self._store.add(record)
        return record, key.text

    async def page(
        self, identity: Identity, limit: int, after: tuple[datetime, str] | None
    ) -> list[KeyRecord]:
        """The caller's keys, newest first, one more than `limit` when there are more."""
        return await self._store.of_user(self._owner(identity), limit + 1, after)

    async def one(self, identity: Identity, key_id: str) -> KeyRecord:
        """One of the caller's keys. Raises `NotFound`."""
        found = await self._store.find(key_id)
        if found is None or found.user_id != self._owner(identity):
            raise NotFound("there is no such key")
        return found

    async def change(self, identity: Identity, key_id: str, changes: Mapping[str, Any]) -> KeyRecord:
        """Change name, scopes, addresses or expiry."""
        owner = self._owner(identity)
        found = await self.one(identity, key_id)
        self._check(
            identity,
            changes.get("scopes", found.scopes),
            changes.get("addresses", found.addresses),
            changes.get("expires_at"),
        )
        changed = await self._store.change(key_id, owner, changes) if changes else found
        if changed is None:
            raise NotFound("there is no such key")
        await self._revocations.revoke([f"changed:{key_id}"])
        return changed

    async def revoke(self, identity: Identity, key_id: str) -> None:
        """End a key at once. Raises `NotFound`, also when it has ended before."""
        found = await self.one(identity, key_id)
        if found.revoked_at is not None and found.revoked_at <= self._now():
            raise NotFound("there is no such key")
        await self._store.change(key_id, found.user_id, {"revoked_at": self._now()})
        await self._revocations.revoke([key_id])

    async def rotate(self, identity: Identity, key_id: str, overlap_seconds: int) -> tuple[KeyRecord, str]:
        """A new key with the rights of the old one, which goes on for `overlap_seconds`."""
        old = await self.one(identity, key_id)
        now = self._now()
        if (old.revoked_at is not None and old.revoked_at <= now) or (
            old.expires_at is not None and old.expires_at <= now
        ):
            raise Conflict("this key has ended: make a new one", code="key-ended")
        made = await self._store_new(
            old.user_id, old.tier, old.name, old.scopes, old.addresses, old.expires_at, old.id
        )
        ends = now + timedelta(seconds=overlap_seconds)
        if old.revoked_at is None or ends < old.revoked_at:
            await self._store.change(old.id, old.user_id, {"revoked_at": ends})
            await self._revocations.revoke([f"changed:{old.id}" if overlap_seconds else old.id])
        return made

    def _owner(self, identity: Identity) -> str:
        if identity.user_id is None or identity.kind != "user":
            raise Forbidden("API keys are managed with a login, not with a key", code="login-required")
        return identity.user_id

    def _check(
        self, identity: Identity, wanted: list[str], addresses: list[str], expires_at: datetime | None
    ) -> None:
        beyond = scopes.excess(identity, wanted)
        if beyond:
            fix = f"{', '.join(beyond)} cannot be granted; known are {', '.join(scopes.GRANTABLE)}"
            raise Invalid(
                fix, code="scope-not-grantable", errors=(FieldError("/scopes", "scope-not-grantable", fix),)
            )
        for item in addresses:
            try:
                ipaddress.ip_network(item, strict=False)
            except ValueError:
                fix = f"{item!r:.50} is not an IP address or network"
                raise Invalid(fix, errors=(FieldError("/addresses", "invalid", fix),)) from None
        if expires_at is not None and expires_at <= self._now():
            fix = "lies in the past"
            raise Invalid(f"expires_at {fix}", errors=(FieldError("/expires_at", "invalid", fix),))
