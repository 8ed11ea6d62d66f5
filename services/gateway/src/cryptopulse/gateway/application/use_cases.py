"""Everything that an entrypoint may call, gathered once by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cryptopulse.common.clock import Clock
from cryptopulse.gateway.application.accounts import AccountService
from cryptopulse.gateway.application.administer import Administration
from cryptopulse.gateway.application.authenticate import Authenticator
from cryptopulse.gateway.application.fan_out import Hub
from cryptopulse.gateway.application.feeds import Feeds
from cryptopulse.gateway.application.limiting import Limits
from cryptopulse.gateway.application.manage_keys import KeyService
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.application.ports import Idempotency, PriceStore, Services, Tokens


@dataclass(slots=True)
class UseCases:
    """The use cases and what they share."""

    clock: Clock
    market: Market
    prices: PriceStore
    hub: Hub
    feeds: Feeds
    authenticator: Authenticator
    limits: Limits
    accounts: AccountService
    keys: KeyService
    administration: Administration
    services: Services
    idempotency: Idempotency
    tokens: Tokens
    cursor_secret: str
    version: str
    started_ms: int
    follow: Callable[[str], Awaitable[None]]
    """Lets trades of a symbol come."""
    dead_letters: Callable[[], Awaitable[dict[str, int]]]
    """The dead-letter queues of all services that exist, with how many messages each holds."""
    readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the health poller last heard of the other services."""
