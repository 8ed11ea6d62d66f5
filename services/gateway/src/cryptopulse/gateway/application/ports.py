"""What the gateway's use cases need from outside, named for the need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.gateway.domain.accounts import RefreshToken, Session, User
from cryptopulse.gateway.domain.limits import Policy, Verdict


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid public token says."""

    subject: str
    expires_at: float
    scope: object = None
    tier: str | None = None
    session_id: str | None = None


class Tokens(Protocol):
    """Reads and makes public JWTs."""

    def read(self, token: str) -> Claims:
        """The claims of a valid token. Raises `Unauthenticated` for every other."""
        ...

    def make(self, claims: Mapping[str, Any], lifetime_seconds: int) -> str:
        """A signed token with `iss`, `aud`, `iat`, `exp` and `jti` added."""
        ...

    def jwks(self) -> dict[str, Any]:
        """The public keys; an empty list while tokens are signed with a shared secret."""
        ...


class Passwords(Protocol):
    """Hashes passwords; slow on purpose, bounded in number."""

    async def hash(self, password: str) -> str:
        """The hash to store."""
        ...

    async def verify(self, stored: str | None, password: str) -> bool:
        """True when they match. None costs the same time and is always False: an unknown user looks like a wrong password."""
        ...

    def is_outdated(self, stored: str) -> bool:
        """True when the hash was made with weaker parameters than now."""
        ...


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as stored."""

    id: str
    user_id: str
    name: str
    hash: bytes
    scopes: list[str]
    tier: str
    addresses: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    last_address: str | None = None
    replaces: str | None = None
    is_owner_disabled: bool = False
    """Told by `Keys.find` alone."""


class Accounts(Protocol):
    """Stores users and their sessions. Every method may raise `StoreUnavailable`."""

    async def add_user(self, user: User) -> bool:
        """Store a new user; False when the address is taken."""
        ...

    async def list_users(self, limit: int, after: tuple[datetime, str] | None) -> list[User]: ...
    async def user_by_email(self, email: str) -> User | None: ...
    async def user_by_id(self, user_id: str) -> User | None: ...
    async def record_failure(self, user_id: str, locked_until: datetime | None) -> None: ...
    async def record_success(self, user_id: str, password_hash: str | None) -> None: ...
    async def set_password(self, user_id: str, password_hash: str, at: datetime) -> None: ...
    async def set_verified(self, user_id: str, at: datetime) -> None: ...
    async def delete_user(self, user_id: str) -> list[str]:
        """Delete a user with sessions and keys; the ids of what must be revoked."""
        ...

    async def add_session(self, session: Session, token_hash: bytes, expires_at: datetime) -> None: ...
    async def refresh_token(self, token_hash: bytes) -> RefreshToken | None: ...
    async def rotate(
        self, spent: bytes, successor: bytes, session_id: str, at: datetime, expires_at: datetime
    ) -> None:
        """Mark one token spent and store its successor; harmless when repeated."""
        ...

    async def sessions(self, user_id: str) -> list[Session]: ...
    async def revoke_sessions(
        self, user_id: str, reason: str, at: datetime, *, only: str | None = None, keep: str | None = None
    ) -> list[str]:
        """End sessions; the ids of those that were alive."""
        ...

    async def add_mail_token(
        self, token_hash: bytes, user_id: str, purpose: str, expires_at: datetime
    ) -> None: ...
    async def use_mail_token(self, token_hash: bytes, purpose: str, at: datetime) -> str | None:
        """The user a fresh token belongs to, once; None for any other."""
        ...


class Keys(Protocol):
    """Stores API keys. Every method may raise `StoreUnavailable`."""

    async def add(self, record: KeyRecord) -> None: ...
    async def find(self, key_id: str) -> KeyRecord | None: ...
    async def of_user(
        self, user_id: str, limit: int, after: tuple[datetime, str] | None
    ) -> list[KeyRecord]: ...
    async def count(self, user_id: str) -> int: ...
    async def change(self, key_id: str, user_id: str, changes: Mapping[str, Any]) -> KeyRecord | None: ...
    async def used(self, key_id: str, at: datetime, address: str) -> None: ...


class Revocations(Protocol):
    """Ids of sessions, keys and users whose credentials no longer count, known in every gateway within seconds."""

    def is_revoked(self, ident: str) -> bool: ...
    async def revoke(self, idents: Sequence[str]) -> None: ...
    async def restore(self, idents: Sequence[str]) -> None:
        """Let ids count again. Only for users: what was given to them before stays revoked by its own id."""
        ...


class Mailer(Protocol):
    """Sends mail, or says in the log what it would have sent."""

    async def send(self, to: str, subject: str, text: str) -> None: ...


class Limiter(Protocol):
    """Counts requests against policies."""

    def take_local(self, policy: Policy, principal: str, cost: float) -> Verdict | None:
        """A verdict from tokens that are here already, None when the store must be asked."""
        ...

    async def take(
        self, policy: Policy, principal: str, cost: float, *, open_on_failure: bool
    ) -> Verdict | None:
        """A verdict of all gateways together. None: the store is away and a local bucket let it pass.

        With `open_on_failure` False an absent store raises `StoreUnavailable`.
        """
        ...


class PriceStore(Protocol):
    """The latest prices as stored by the owners of the shards."""

    async def load_all(self) -> list[PriceUpdate]: ...
    async def load(self, symbol: str, source: str) -> PriceUpdate | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What another service answered: forwarded as it is."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Services(Protocol):
    """The internal HTTP of the other services."""

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        identity: Identity,
        query: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call with the caller's identity. Raises `UpstreamUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that is kept for an idempotency key."""

    request_hash: bytes
    status: int | None
    headers: dict[str, str]
    body: bytes


class Idempotency(Protocol):
    """Answers kept under (principal, key) for 24 h."""

    async def claim(self, principal: str, key: str, request_hash: bytes) -> StoredAnswer | None:
        """None: the key is ours now. Otherwise what is stored under it; `status` None while the first call runs."""
        ...

    async def finish(self, principal: str, key: str, answer: StoredAnswer) -> None: ...
    async def release(self, principal: str, key: str) -> None:
        """Give a claim back after a failure, so that the client may try again."""
        ...
