"""What the use cases of alerts need from the world, as small seams; the adapters keep the promises."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.market import Position
from cryptopulse.alerts.domain.rules import Firing, Rule
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.resolver import Resolver


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule as stored."""

    id: str
    user_id: str
    version: int
    state: str
    definition: RuleDefinition
    runtime: dict[str, Any]
    webhook_ids: list[str]
    snoozed_until: datetime | None
    expires_at: datetime | None
    created_price: Decimal | None
    armed_at: datetime
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule to be stored."""

    id: str
    definition: RuleDefinition
    webhook_ids: list[str]
    expires_at: datetime | None
    created_price: Decimal | None
    runtime: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """An endpoint to be stored."""

    id: str
    url: str
    description: str | None
    event_types: list[str]
    secret: bytes


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as stored."""

    id: str
    user_id: str
    rule_id: str | None
    type: str
    dedupe_key: str
    at: datetime
    symbol: str
    source: str
    condition: str
    message: str
    price: Decimal | None
    threshold: Decimal | None
    late: bool
    simulated: bool
    data: dict[str, Any]
    created_at: datetime
    acked_at: datetime | None


@dataclass(frozen=True, slots=True)
class PreparedEvent:
    """A firing with its id, its text, and the bytes that its webhooks get: the same at every attempt."""

    id: str
    firing: Firing
    message: str
    body: bytes
    payload: bytes
    """The bus message, encoded."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch of firings: those stored, and the rules that were not at the version they were fired at."""

    stored: int = 0
    rejected: frozenset[str] = frozenset()


class FiringStore(Protocol):
    """Stores firings: event, rule's state, outbox and deliveries in one transaction per chunk."""

    async def commit(self, events: Sequence[PreparedEvent]) -> Committed:
        """Store each event once (unique dedupe key), if its rule is still at the version it fired at.

        Raises `StoreUnavailable`; then nothing or something of the batch is stored, and the same call may be made again:
        what was stored is told as rejected and changes nothing.
        """
        ...


class ShardStore(Protocol):
    """What a shard's owner loads and saves."""

    async def homes(self) -> list[str]:
        """The homes (assets, `*`) of all active rules."""
        ...

    async def rules(self, homes: Sequence[str]) -> list[Rule]:
        """The active rules of these homes."""
        ...

    async def rule(self, rule_id: str) -> tuple[str, Rule] | None:
        """(home, rule) when it is active, None when it is gone or not active."""
        ...

    async def rules_by_id(self, rule_ids: Sequence[str]) -> dict[str, tuple[str, Rule]]:
        """Id -> (home, rule) of those that are active."""
        ...

    async def changed_since(self, since: datetime) -> list[str]:
        """Ids of rules that changed after `since`."""
        ...

    async def positions(self, bases: Sequence[str]) -> list[Position]:
        """Where the markets of these assets stood."""
        ...

    async def save(self, positions: Sequence[Position], rules: Sequence[Rule], *, epoch: int) -> None:
        """Keep positions (refused silently where a higher epoch wrote) and the memory of rules, in one transaction."""
        ...


@dataclass(frozen=True, slots=True)
class CurrentPrice:
    """The newest known price of a market."""

    price: Decimal
    received_us: int
    status: str
    simulated: bool


class MarketReader(Protocol):
    """Latest values, from Redis."""

    async def price(self, symbol: str, source: str) -> CurrentPrice | None:
        """The newest price, None when none is known. Raises `StoreUnavailable`."""
        ...

    async def indicator(self, symbol: str, source: str, interval: str) -> IndicatorUpdate | None:
        """The newest indicator values of a series."""
        ...

    async def resolver(self) -> Resolver:
        """The resolver over the newest catalogue. Raises `StoreUnavailable`."""
        ...


class Portfolios(Protocol):
    """Portfolios, from the service that owns them."""

    async def has(self, user_id: str, portfolio_id: int) -> bool:
        """Whether this is a portfolio of the user's. Raises `UpstreamUnavailable`."""
        ...

    async def watch(self, portfolio_ids: Collection[int]) -> None:
        """Keep these valued for a while. Raises `UpstreamUnavailable`."""
        ...


class CandleReader(Protocol):
    """Stored candles, from the indicators service."""

    async def candles(
        self, symbol: str, source: str, interval: str, from_ms: int, to_ms: int, *, newest: int | None = None
    ) -> list[Candle]:
        """Candles of [from_ms, to_ms), oldest first, all pages (or only the `newest` so many). Raises `UpstreamUnavailable`."""
        ...

    async def spans(
        self, symbol: str, source: str, interval: Interval, spans: Sequence[tuple[int, int]]
    ) -> list[Candle]:
        """Closed candles of all spans [from, to), oldest first; what is not price or volume in base units is not asked for and 0.

        Raises `UpstreamUnavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery in our hands until `leased_until`."""

    id: str
    webhook_id: str
    user_id: str
    url: str
    message_id: str
    event_type: str
    body: bytes
    attempts: int
    round_attempts: int
    age_seconds: float
    traceparent: str | None
    secrets: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said: a status, or an error in general words when it said nothing."""

    status: int | None
    duration_ms: int
    error: str | None = None
    retry_after: str | None = None
    abort: bool = False
    text: str | None = None


class WebhookSender(Protocol):
    """Posts bytes to a public address, and nowhere else."""

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """One attempt, on a fresh connection to an address that was checked for it. Never raises for what the far side does."""
        ...


class RuleRepository(Protocol):
    """Rules and events of a user; everything not his is `NotFound`, exactly like what is not there."""

    async def create(self, user_id: str, tier: str, rule: NewRule, *, cap: int) -> RuleRow:
        """Store a rule. Raises `LimitExceeded` at `cap` open ones, `Invalid` for a webhook that is not his."""
        ...

    async def get(self, user_id: str, rule_id: str) -> RuleRow:
        """One rule."""
        ...

    async def page(
        self, user_id: str, *, state: str | None, symbol: str | None, kind: str | None,
        before: tuple[datetime, str] | None, limit: int,
    ) -> list[RuleRow]:  # fmt: skip
        """Newest first."""
        ...

    async def replace(self, user_id: str, rule: RuleRow, *, expected: int | None, rearm: bool) -> RuleRow:
        """Store a changed rule over the version that was read. Raises `PreconditionFailed` when it is no longer the newest."""
        ...

    async def delete(self, user_id: str, rule_id: str, *, expected: int | None) -> None:
        """Delete a rule with its events."""
        ...

    async def events(
        self, user_id: str, *, rule_id: str | None, kind: str | None, since: datetime | None, unacked: bool,
        after: tuple[datetime, str] | None, newest_first: bool, limit: int,
    ) -> list[EventRow]:  # fmt: skip
        """Events of a user, of one rule when it is named."""
        ...

    async def event(self, user_id: str, event_id: str) -> EventRow:
        """One event."""
        ...

    async def acknowledge(self, user_id: str, event_id: str) -> datetime:
        """When the event was acknowledged: now, or before."""
        ...


Record = Mapping[str, Any]


class WebhookRepository(Protocol):
    """Endpoints and deliveries of a user; everything not his is `NotFound`."""

    async def create(self, user_id: str, hook: NewWebhook, *, cap: int) -> Record:
        """Store an endpoint. Raises `Conflict` for a URL that he has, `LimitExceeded` over `cap`."""
        ...

    async def find_or_create(self, user_id: str, hook: NewWebhook, *, cap: int) -> tuple[Record, bool]:
        """His endpoint with this URL; -> (endpoint, whether it is new)."""
        ...

    async def get(self, user_id: str, webhook_id: str) -> Record:
        """One endpoint."""
        ...

    async def page(self, user_id: str, *, before: tuple[datetime, str] | None, limit: int) -> list[Record]:
        """Newest first."""
        ...

    async def update(
        self, user_id: str, webhook_id: str, *, expected: int | None, url: str | None = None,
        description: str | None = None, event_types: list[str] | None = None, enabled: bool | None = None,
    ) -> Record:  # fmt: skip
        """Change what is given."""
        ...

    async def delete(self, user_id: str, webhook_id: str, *, expected: int | None) -> None:
        """Delete an endpoint with its log."""
        ...

    async def rotate(self, user_id: str, webhook_id: str, secret: bytes, *, overlap_seconds: int) -> datetime:
        """A new secret; -> until when the old one signs beside it."""
        ...

    async def enqueue(
        self, user_id: str, webhook_id: str, delivery_id: str, message_id: str, kind: str, body: bytes
    ) -> Record:
        """A message for one endpoint. Raises `Conflict` when it is disabled."""
        ...

    async def deliveries(
        self,
        user_id: str,
        webhook_id: str,
        *,
        status: str | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Record]:
        """The log, newest first."""
        ...

    async def delivery(self, user_id: str, webhook_id: str, delivery_id: str) -> tuple[Record, list[Record]]:
        """One delivery and its attempts."""
        ...

    async def replay(self, user_id: str, webhook_id: str, delivery_id: str) -> Record:
        """Send one delivery again."""
        ...

    async def replay_range(
        self, user_id: str, webhook_id: str, *, since: datetime, until: datetime, only_failed: bool
    ) -> int:
        """Send the deliveries of a range again; -> how many."""
        ...
