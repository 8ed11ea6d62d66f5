"""Scopes: what a credential may do, which scope implies which, and who may grant what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptopulse.common.contracts.identity import ALL_SCOPES, Identity

ADMIN: Final = "admin"
"""Never implied by `*`: a token holds it by name or not at all."""

GRANTABLE: Final[tuple[str, ...]] = (
    "market:read",
    "alerts",
    "alerts:read",
    "portfolio",
    "portfolio:read",
    "webhooks",
    "webhooks:read",
)
"""What an API key can be given."""


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with everything that they imply: `alerts` holds `alerts:read` and `alerts:write`."""
    held = set(scopes)
    for scope in tuple(held):
        if ":" not in scope and scope not in {ALL_SCOPES, ADMIN}:
            held |= {f"{scope}:read", f"{scope}:write"}
    return frozenset(held)


def permits(identity: Identity, scope: str) -> bool:
    """True when the caller holds the scope. `admin` must be held by name; everything else also through `*`."""
    if scope == ADMIN:
        return ADMIN in identity.scopes
    return identity.allows(scope)


def excess(identity: Identity, wanted: Iterable[str]) -> list[str]:
    """The wanted scopes that this caller cannot hand on, sorted: nobody grants more than he holds."""
    return sorted(scope for scope in set(wanted) if scope not in GRANTABLE or not permits(identity, scope))


def from_claim(claim: object) -> frozenset[str]:
    """The scopes of a token's `scope` claim: a space-separated text; absent means everything a user may do."""
    if claim is None:
        return frozenset({ALL_SCOPES})
    if isinstance(claim, str):
        return expand(claim.split())
    if isinstance(claim, list | tuple):
        return expand(str(item) for item in claim)
    return frozenset()
