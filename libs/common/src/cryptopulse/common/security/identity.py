"""How services know each other's callers: a signed token of a minute's life, made for one service.

It has its own key and audience, so a token of the public API is worth nothing inside, and the other way round.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import jwt
from fastapi import FastAPI, Request
from pydantic import SecretStr

from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.contracts.identity import ALL_SCOPES, ANONYMOUS, CallerKind, Identity
from cryptopulse.common.errors import Unauthenticated
from cryptopulse.common.security.cache import Verified

__all__ = [
    "ALL_SCOPES",
    "ANONYMOUS",
    "Identity",
    "InternalSigner",
    "InternalVerifier",
    "authenticate",
    "caller",
]

ALGORITHM: Final = "HS256"
TYPE: Final = "cp-internal+jwt"
AUDIENCE_PREFIX: Final = "cryptopulse:"
LIFETIME_SECONDS: Final = 60
REUSE_SECONDS: Final = 30
LEEWAY_SECONDS: Final = 5
CACHE_SIZE: Final = 10_000
MAX_TOKEN_BYTES: Final = 4_096

_KINDS: Final[dict[object, CallerKind]] = {kind: kind for kind in get_args(CallerKind)}


class InternalSigner:
    """Signs, with the first of the secrets, who calls for another service. A token is handed out again for half a minute, so most calls sign nothing."""

    def __init__(self, secret: SecretStr | str, issuer: str, *, clock: Clock | None = None) -> None:
        self._key = _reveal(secret)[0]
        self._issuer = issuer
        self._clock = clock or SystemClock()
        self._signed: dict[tuple[Identity, str], tuple[float, str]] = {}

    def sign(self, identity: Identity, audience: str) -> str:
        """A token that lets `identity` call the service `audience` for about a minute."""
        now = self._clock.now_ms() / 1000
        known = self._signed.get((identity, audience))
        if known is not None and now - REUSE_SECONDS < known[0] <= now:
            return known[1]
        if len(self._signed) >= CACHE_SIZE:
            self._signed.clear()
        token = jwt.encode(
            self._claims(identity, audience, int(now)), self._key, algorithm=ALGORITHM, headers={"typ": TYPE}
        )
        self._signed[identity, audience] = (now, token)
        return token

    def _claims(self, identity: Identity, audience: str, now: int) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": AUDIENCE_PREFIX + self._issuer,
            "aud": AUDIENCE_PREFIX + audience,
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "kind": identity.kind,
            "tier": identity.tier,
            "scope": " ".join(sorted(identity.scopes)),
        }
        optional = {"sub": identity.user_id, "sid": identity.session_id, "key_id": identity.key_id}
        return claims | {name: value for name, value in optional.items() if value is not None}


class InternalVerifier:
    """Checks the tokens that callers show the service `audience`: any of the secrets may have signed them."""

    def __init__(self, secret: SecretStr | str, audience: str, *, clock: Clock | None = None) -> None:
        self._keys = _reveal(secret)
        self._audience = AUDIENCE_PREFIX + audience
        self._clock = clock or SystemClock()
        self._verified: Verified[Identity] = Verified(CACHE_SIZE)

    def verify(self, token: str) -> Identity:
        """The caller. Raises `Unauthenticated` for whatever is not a valid token for this service."""
        now = self._clock.now_ms() / 1000
        known = self._verified.get(token, now)
        if known is not None:
            return known
        claims = self._decoded(token)
        expires_at = claims["exp"]
        if expires_at + LEEWAY_SECONDS <= now or claims["iat"] > now + LEEWAY_SECONDS:
            raise _refused()
        identity = _identity(claims)
        self._verified.put(token, expires_at, identity)
        return identity

    def _decoded(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused()
        decoded = self._opened(token, self._keys[0], self._keys[1:])
        claims: dict[str, Any] = decoded["payload"]
        times_are_numbers = all(
            isinstance(claims[name], (int, float)) and not isinstance(claims[name], bool)
            for name in ("exp", "iat")
        )
        if decoded["header"].get("typ") != TYPE or not times_are_numbers:
            raise _refused()
        return claims

    def _opened(self, token: str, key: str, others: tuple[str, ...]) -> dict[str, Any]:
        """The token by the first key that fits."""
        try:
            return jwt.decode_complete(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                # Times are checked by our own clock.
                options={"require": ["iss", "aud", "exp", "iat"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError as error:
            if not others:
                raise _refused() from error
            return self._opened(token, others[0], others[1:])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _refused() from error


def authenticate(app: FastAPI, verifier: InternalVerifier) -> None:
    """Let `caller` of this app check tokens with `verifier`; the runtime does it for the internal app."""
    app.state.internal_verifier = verifier


def caller(request: Request) -> Identity:
    """FastAPI dependency of internal routes: who calls. Raises `Unauthenticated` (401) without a valid internal token."""
    verifier: InternalVerifier = request.app.state.internal_verifier
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "This is an internal endpoint: it needs a token of another service.", code="no-internal-token"
        )
    return verifier.verify(token.strip())


def _identity(claims: dict[str, Any]) -> Identity:
    kind = _KINDS.get(str(claims.get("kind")))
    texts = {name: claims.get(name) for name in ("sub", "sid", "key_id")}
    if kind is None or any(value is not None and not isinstance(value, str) for value in texts.values()):
        raise _refused()
    return Identity(
        user_id=texts["sub"],
        scopes=frozenset(str(claims.get("scope", "")).split()),
        tier=str(claims.get("tier", "free")),
        kind=kind,
        session_id=texts["sid"],
        key_id=texts["key_id"],
    )


def _refused() -> Unauthenticated:
    return Unauthenticated("The internal token is not valid.", code="bad-internal-token")


def _reveal(secret: SecretStr | str) -> tuple[str, ...]:
    """The secrets of a comma list, the one that signs first."""
    value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    secrets = tuple(value.split(","))
    if any(len(one.encode()) < 32 for one in secrets):
        raise ValueError("a signing secret needs at least 32 bytes")
    return secrets
