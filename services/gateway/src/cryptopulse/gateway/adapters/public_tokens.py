"""Public access tokens: the library's issuer and verifier behind the gateway's port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptopulse.common.security.keys import KeyRing
from cryptopulse.common.security.tokens import TokenIssuer, TokenVerifier
from cryptopulse.gateway.application.ports import Claims
from cryptopulse.gateway.domain.scopes import from_claim


class PublicTokens:
    """Reads and makes JWTs with one ring of keys."""

    def __init__(self, ring: KeyRing, issuer: TokenIssuer, verifier: TokenVerifier) -> None:
        self._ring = ring
        self._issuer = issuer
        self._verifier = verifier

    def read(self, token: str) -> Claims:
        """The claims of a valid token. Raises `Unauthenticated`."""
        found = self._verifier.verify(token)
        return Claims(
            subject=found.subject,
            expires_at=found.expires_at,
            scope=" ".join(sorted(found.scopes)),
            tier=found.tier,
            session_id=found.session_id or None,
        )

    def make(self, claims: Mapping[str, Any], lifetime_seconds: int) -> str:
        """A signed token; a missing `scope` means everything a user may do."""
        return self._issuer.issue(
            claims["sub"],
            scopes=from_claim(claims.get("scope")),
            tier=claims.get("tier", "free"),
            session_id=claims.get("sid", ""),
            lifetime_seconds=lifetime_seconds,
        )

    def jwks(self) -> dict[str, Any]:
        """The public keys."""
        return self._ring.jwks()
