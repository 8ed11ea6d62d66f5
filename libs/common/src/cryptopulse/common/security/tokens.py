"""Tokens of the public API: JWTs whose algorithm, audience and issuer are fixed here and never taken from the token.

With a key pair (EdDSA, ES256, RS256) every claim that we write is demanded. With the shared secret (HS256), tokens
minted elsewhere with just `sub` and `exp` are valid too; what else they claim is checked when present.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

import jwt

from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.contracts.identity import ALL_SCOPES, Identity
from cryptopulse.common.errors import Unauthenticated
from cryptopulse.common.security.cache import Verified
from cryptopulse.common.security.keys import Key, KeyRing

ACCESS_TYPE: Final = "at+jwt"
LIFETIME_SECONDS: Final = 600
LEEWAY_SECONDS: Final = 30
MAX_TOKEN_CHARS: Final = 8_192
MAX_HEADER_CHARS: Final = 1_024
MAX_LIFETIME_SECONDS: Final = 366 * 86_400
LATEST_SECONDS: Final = 1e12
"""Beyond any date; also keeps out infinities and integers that no float can hold."""
CACHE_SIZE: Final = 20_000

_STRICT: Final = ("iss", "aud", "sub", "exp", "iat", "jti", "scope", "tier")
_SIMPLE: Final = ("sub", "exp")
_TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says. Times are seconds since 1970 UTC; `token_id` and `session_id` are empty when not given."""

    subject: str
    scopes: frozenset[str]
    tier: str
    expires_at: float
    issued_at: float | None = None
    token_id: str = ""
    session_id: str = ""

    def identity(self) -> Identity:
        """The caller as the rest of the house knows it."""
        return Identity(
            user_id=self.subject,
            scopes=self.scopes,
            tier=self.tier,
            kind="user",
            session_id=self.session_id or None,
        )


class TokenIssuer:
    """Signs access tokens with the current key of the ring."""

    def __init__(self, ring: KeyRing, *, issuer: str, audience: str, clock: Clock | None = None) -> None:
        self._ring = ring
        self._issuer = issuer
        self._audience = audience
        self._clock = clock or SystemClock()

    def issue(
        self,
        subject: str,
        *,
        scopes: frozenset[str] = frozenset({ALL_SCOPES}),
        tier: str = "free",
        session_id: str = "",
        lifetime_seconds: int = LIFETIME_SECONDS,
    ) -> str:
        """A token for `subject` that expires after `lifetime_seconds`."""
        now = self._clock.now_ms() // 1000
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": now,
            "exp": now + lifetime_seconds,
            "jti": secrets.token_urlsafe(12),
            "scope": " ".join(sorted(scopes)),
            "tier": tier,
        }
        if session_id:
            claims["sid"] = session_id
        key = self._ring.current
        assert key.signs_with is not None
        return jwt.encode(
            claims, key.signs_with, algorithm=key.algorithm, headers={"typ": ACCESS_TYPE, "kid": key.kid}
        )


class TokenVerifier:
    """Checks access tokens. `strict` demands all claims and a `kid`; by default it holds for everything but HS256."""

    def __init__(
        self,
        ring: KeyRing,
        *,
        issuer: str,
        audience: str,
        clock: Clock | None = None,
        strict: bool | None = None,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._ring = ring
        self._issuer = issuer
        self._audience = audience
        self._clock = clock or SystemClock()
        self._strict = ring.algorithm != "HS256" if strict is None else strict
        self._verified: Verified[Claims] = Verified(cache_size)

    def verify(self, token: str) -> Claims:
        """The claims of a valid token; remembered until it expires.

        Raises `Unauthenticated`, code `token-expired` for one that was valid once, `bad-token` for everything else: why
        is not told. Revocation is the caller's to check, by `session_id` and `token_id`, on every call.
        """
        now = self._clock.now_ms() / 1000
        known = self._verified.get(token, now)
        if known is not None:
            return known
        claims = self._claims(self._decoded(token), now)
        self._verified.put(token, min(claims.expires_at, now + 3_600), claims)
        return claims

    def replace_keys(self, ring: KeyRing) -> None:
        """Go on with another ring after a rotation; nothing verified before is taken on trust."""
        if ring.algorithm != self._ring.algorithm:
            raise ValueError("the algorithm is fixed by configuration")
        self._ring = ring
        self._verified.clear()

    def _decoded(self, token: str) -> dict[str, Any]:
        """The payload of a token whose signature holds under one of our keys."""
        if len(token) > MAX_TOKEN_CHARS or len(token.partition(".")[0]) > MAX_HEADER_CHARS:
            raise _bad()
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _bad() from error
        for key in self._candidates(header):
            try:
                payload: dict[str, Any] = jwt.decode(
                    token,
                    key.verifies_with,
                    algorithms=[key.algorithm],
                    # Claims are checked below, by our own clock and rules.
                    options={
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                        "verify_aud": False,
                        "verify_iss": False,
                        "verify_sub": False,
                        "verify_jti": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                raise _bad() from error
            return payload
        raise _bad()

    def _candidates(self, header: dict[str, Any]) -> tuple[Key, ...]:
        """The keys that may have signed: the one that `kid` names; all of ours when a foreign HS256 token names none."""
        if header.get("alg") != self._ring.algorithm or "crit" in header:
            raise _bad()
        kind = header.get("typ")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise _bad()
        if self._strict and (not isinstance(kind, str) or kind.lower() == "jwt"):
            raise _bad()
        kid = header.get("kid")
        if kid is None:
            if self._strict:
                raise _bad()
            return self._ring.keys
        key = self._ring.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise _bad()
        return (key,)

    def _claims(self, payload: dict[str, Any], now: float) -> Claims:
        if any(payload.get(name) is None for name in (_STRICT if self._strict else _SIMPLE)):
            raise _bad()
        subject = payload["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 256:
            raise _bad()
        issuer, audience = payload.get("iss"), payload.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if issuer is not None and issuer != self._issuer:
            raise _bad()
        if audience is not None and self._audience not in audiences:
            raise _bad()
        issued_at, not_before = _seconds(payload, "iat"), _seconds(payload, "nbf")
        if any(at is not None and at > now + LEEWAY_SECONDS for at in (issued_at, not_before)):
            raise _bad()
        expires_at = _seconds(payload, "exp")
        if expires_at is None or (self._strict and expires_at > now + MAX_LIFETIME_SECONDS):
            raise _bad()
        if expires_at + LEEWAY_SECONDS <= now:
            raise Unauthenticated("The token has expired.", code="token-expired")
        return Claims(
            subject=subject,
            scopes=_scopes(payload.get("scope")),
            tier=_text(payload, "tier") or "free",
            expires_at=expires_at + LEEWAY_SECONDS,
            issued_at=issued_at,
            token_id=_text(payload, "jti"),
            session_id=_text(payload, "sid"),
        )


def _seconds(payload: dict[str, Any], name: str) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LATEST_SECONDS:
        raise _bad()
    return float(value)


def _text(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 256:
        raise _bad()
    return value


def _scopes(value: Any) -> frozenset[str]:
    """The scopes of the claim; without one the token may do all that its user may."""
    if value is None:
        return frozenset({ALL_SCOPES})
    if not isinstance(value, str):
        raise _bad()
    return frozenset(value.split())


def _bad() -> Unauthenticated:
    return Unauthenticated("The token is not valid.", code="bad-token")
