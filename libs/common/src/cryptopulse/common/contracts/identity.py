"""Who calls: the value that travels from the gateway to the services inside a short-lived signed token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

CallerKind = Literal["user", "key", "service", "anonymous"]

ALL_SCOPES: Final = "*"
"""Held by whoever may do everything a user may do: a token without a scope claim."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `user_id` is None for anonymous callers and for services that act for nobody.

    `scopes` holds `*` when nothing narrows it. `tier` names the plan that limits are taken from. `session_id` is the
    refresh family of a login, `key_id` the public id of an API key; at most one of them is set.
    """

    user_id: str | None
    scopes: frozenset[str] = field(default_factory=frozenset)
    tier: str = "free"
    kind: CallerKind = "user"
    session_id: str | None = None
    key_id: str | None = None

    def allows(self, scope: str) -> bool:
        """True when the caller holds the scope, by name or because nothing narrows it."""
        return scope in self.scopes or ALL_SCOPES in self.scopes

    @property
    def principal(self) -> str:
        """A stable name of the caller for limits and idempotency; never shown to another caller."""
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return f"{self.kind}:{self.user_id}" if self.user_id is not None else self.kind


ANONYMOUS: Final = Identity(user_id=None, kind="anonymous", tier="anonymous")
"""A caller without any credential."""
