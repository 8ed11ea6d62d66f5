"""Who calls: bearer tokens and API keys to an identity, verified once and then remembered until they expire or are revoked."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.common.errors import Forbidden, Unauthenticated
from cryptopulse.gateway.application.limiting import Limits
from cryptopulse.gateway.application.ports import KeyRecord, Keys, Revocations, Tokens
from cryptopulse.gateway.domain import api_keys, scopes
from cryptopulse.gateway.domain.accounts import DISABLED
from cryptopulse.gateway.domain.limits import TIERS

KEY_CACHE_SECONDS: Final = 30.0
CACHE_SIZE: Final = 50_000
USE_NOTE_SECONDS: Final = 60.0
TOKEN_MAX: Final = 8_192


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller; `until` is the wall-clock second when the credential ends, None when it does not."""

    identity: Identity
    until: float | None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class _Entry:
    caller: Caller | None
    fresh_until: float
    is_disabled: bool = False


class Authenticator:
    """Verifies credentials. A bad one is refused everywhere, also where none is needed, and counted by address."""

    def __init__(
        self, tokens: Tokens, keys: Keys, revocations: Revocations, clock: Clock, limits: Limits
    ) -> None:
        self._tokens = tokens
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._limits = limits
        self._cache: OrderedDict[bytes, _Entry] = OrderedDict()
        self._noted: dict[str, float] = {}

    def remembered(self, credential: str, address: str) -> Caller | None:
        """The caller of a credential that was verified before and still counts; never awaits (the hot path)."""
        entry = self._cache.get(hashlib.sha256(credential.encode()).digest())
        if entry is None or entry.caller is None:
            return None
        now = self._clock.now_us() / 1e6
        if now >= entry.fresh_until or self.is_revoked(entry.caller.identity):
            return None
        if entry.caller.addresses and not api_keys.is_address_allowed(address, list(entry.caller.addresses)):
            return None
        return entry.caller

    async def authenticate(self, credential: str, address: str) -> Caller:
        """The caller of a credential.

        Raises `Unauthenticated`, `Forbidden` (a key from another address), `OverLimitError` (too many wrong ones from this
        address), `StoreUnavailable`.
        """
        found = self.remembered(credential, address)
        if found is not None:
            if found.identity.key_id is not None:
                await self._note_use(found.identity.key_id, address)
            return found
        self._limits.local(ANONYMOUS, address, "credentials", 0)
        try:
            if credential.startswith("cp_"):
                return await self._by_key(credential, address)
            return self._by_token(credential)
        except (Unauthenticated, Forbidden):
            await self._limits.count(ANONYMOUS, address, "credentials", 1)
            raise

    def forget_keys(self) -> None:
        """Look keys up again at their next use: one of them was changed, or its owner may use it again."""
        for digest in [
            digest
            for digest, entry in self._cache.items()
            if entry.caller is None or entry.caller.identity.key_id
        ]:
            del self._cache[digest]

    def _by_token(self, token: str) -> Caller:
        if len(token) > TOKEN_MAX:
            raise Unauthenticated("the token is too long", code="invalid-token")
        claims = self._tokens.read(token)
        tier = claims.tier if claims.tier in TIERS and claims.tier != "anonymous" else "free"
        identity = Identity(
            user_id=claims.subject,
            scopes=scopes.from_claim(claims.scope),
            tier=tier,
            kind="user",
            session_id=claims.session_id,
        )
        if self.is_revoked(identity):
            raise Unauthenticated("the session has ended: log in again", code="revoked")
        caller = Caller(identity, claims.expires_at)
        self._remember(token, caller, claims.expires_at)
        return caller

    async def _by_key(self, text: str, address: str) -> Caller:
        key = api_keys.parse(text)
        if key is None:
            raise Unauthenticated("the API key is malformed: its checksum does not match", code="invalid-key")
        digest = hashlib.sha256(text.encode()).digest()
        now = self._clock.now_us() / 1e6
        entry = self._cache.get(digest)
        if entry is not None and entry.caller is None and now < entry.fresh_until:
            raise _refusal(entry.is_disabled)
        record = await self._keys.find(key.id)
        if (
            record is None
            or not hmac.compare_digest(record.hash, key.hash)
            or not self._is_alive(record, now)
        ):
            self._remember(text, None, now + KEY_CACHE_SECONDS)
            raise _refusal(is_disabled=False)
        if record.is_owner_disabled:
            self._remember(text, None, now + KEY_CACHE_SECONDS, is_disabled=True)
            raise _refusal(is_disabled=True)
        if not api_keys.is_address_allowed(address, record.addresses):
            raise Forbidden("this API key may not be used from your address", code="address-not-allowed")
        until = record.expires_at.timestamp() if record.expires_at is not None else None
        identity = Identity(
            user_id=record.user_id,
            scopes=scopes.expand(record.scopes),
            tier=record.tier,
            kind="key",
            key_id=record.id,
        )
        caller = Caller(identity, until, tuple(record.addresses))
        fresh = now + KEY_CACHE_SECONDS if until is None else min(until, now + KEY_CACHE_SECONDS)
        self._remember(text, caller, fresh)
        await self._note_use(record.id, address)
        return caller

    def _is_alive(self, record: KeyRecord, now: float) -> bool:
        at = datetime.fromtimestamp(now, UTC)
        ended = record.revoked_at is not None and record.revoked_at <= at
        return not ended and (record.expires_at is None or record.expires_at > at)

    def is_revoked(self, identity: Identity) -> bool:
        """True when the session, the key or the user behind an identity has lost its right since."""
        revoked = self._revocations.is_revoked
        return (
            (identity.session_id is not None and revoked(identity.session_id))
            or (identity.key_id is not None and revoked(identity.key_id))
            or revoked(f"user:{identity.user_id}")
        )

    def _remember(
        self, credential: str, caller: Caller | None, fresh_until: float, *, is_disabled: bool = False
    ) -> None:
        entry = _Entry(caller, fresh_until, is_disabled)
        self._cache[hashlib.sha256(credential.encode()).digest()] = entry
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    async def _note_use(self, key_id: str, address: str) -> None:
        now = self._clock.monotonic()
        if now - self._noted.get(key_id, -USE_NOTE_SECONDS) < USE_NOTE_SECONDS:
            return
        if len(self._noted) > CACHE_SIZE:
            self._noted.clear()
        self._noted[key_id] = now
        await self._keys.used(key_id, datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC), address)


def _refusal(is_disabled: bool) -> Forbidden | Unauthenticated:
    if is_disabled:
        return Forbidden(DISABLED, code="account-disabled")
    return Unauthenticated("the API key is not valid", code="invalid-key")
