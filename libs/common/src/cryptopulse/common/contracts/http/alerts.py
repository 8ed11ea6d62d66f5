"""Alerts over HTTP: rules, events, webhooks and their deliveries, as clients see them and as the alerts service serves them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from cryptopulse.common.contracts.http.alert_conditions import (
    Composite,
    Condition,
    Price,
    RuleInterval,
    SourceText,
    SymbolText,
    is_state,
    leaves_of,
)
from cryptopulse.common.contracts.http.spec import READ_ERRORS, WRITE_ERRORS, RouteSpec

RuleState = Literal[
    "armed",
    "pending",
    "firing",
    "cooldown",
    "recovering",
    "paused",
    "snoozed",
    "expired",
    "completed",
    "error",
]
Trigger = Literal["once", "once_per_bar", "once_per_bar_close", "every_cross", "recurring"]
EventType = Literal[
    "alert.triggered", "alert.resolved", "alert.expired", "alert.error", "alert.gap", "alert.summary"
]
WebhookEventType = Literal[
    "alert.triggered",
    "alert.resolved",
    "alert.expired",
    "alert.error",
    "alert.gap",
    "alert.summary",
    "webhook.test",
    "endpoint.disabled",
]
DeliveryStatus = Literal["pending", "delivering", "delivered", "failed", "exhausted", "cancelled"]
ShortCondition = Literal["above", "below", "cross"]

MESSAGE_VARIABLES: Final = (
    "symbol", "source", "price", "threshold", "condition", "direction", "time", "note", "rule_id", "count",
)  # fmt: skip
MIN_COOLDOWN_SECONDS: Final = 5
DEFAULT_COOLDOWN_SECONDS: Final = 300
DEFAULT_LIFE_DAYS: Final = 90

RuleId = Annotated[str, Field(pattern=r"^al_[0-9a-f]{32}$", examples=["al_0198f2c4b1e47a3c9d2e5f60718293a4"])]
WebhookId = Annotated[
    str, Field(pattern=r"^wh_[0-9a-f]{32}$", examples=["wh_0198f2c4b1e47a3c9d2e5f60718293a4"])
]
Url = Annotated[str, Field(min_length=8, max_length=2048, examples=["https://example.com/hooks/prices"])]


def _template(text: str) -> str:
    """Only `{name}` with a known name; braces otherwise doubled. No attribute, index, format or conversion."""
    rest = text.replace("{{", "").replace("}}", "")
    while "{" in rest or "}" in rest:
        head, opened, tail = rest.partition("{")
        name, closed, rest = tail.partition("}")
        if "}" in head or not opened or not closed or name not in MESSAGE_VARIABLES:
            raise ValueError(
                "a message may hold {" + "}, {".join(MESSAGE_VARIABLES) + "}, and {{ }} for plain braces"
            )
    return text


MessageTemplate = Annotated[str, Field(max_length=500), AfterValidator(_template)]


class Body(BaseModel):
    """A request body: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Hysteresis(Body):
    """How far the value must go back behind the threshold before the rule can fire again: absolute or in percent of it."""

    abs: Annotated[Decimal, Field(gt=0, max_digits=42, decimal_places=24)] | None = None
    pct: Annotated[Decimal, Field(gt=0, lt=100, max_digits=12, decimal_places=8)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Hysteresis:
        if (self.abs is None) == (self.pct is None):
            raise ValueError("give either abs or pct")
        return self


class RuleOptions(Body):
    """How a rule behaves, apart from its condition."""

    source: SourceText = "consolidated"
    """`consolidated` (X-USD) or a venue: whose prices, bars and indicators are looked at."""
    trigger: Trigger = "once"
    """How often it fires; `once_per_bar_close` looks at the close of each bar only."""
    bar_interval: RuleInterval | None = None
    """The bar of `once_per_bar` and `once_per_bar_close`; 1m unless told."""
    cooldown_seconds: int | None = Field(default=None, ge=MIN_COOLDOWN_SECONDS, le=30 * 86_400)
    """With `recurring`: the least time between two firings; 300 unless told."""
    hysteresis: Hysteresis | None = None
    for_seconds: int = Field(default=0, ge=0, le=86_400)
    """How long the condition must hold before it fires; states only."""
    expires_at: datetime | None = None
    """When the rule ends by itself; 90 days from now unless told. See `never_expires`."""
    never_expires: bool = False
    notify_resolved: bool = False
    """Send `alert.resolved` when the condition no longer holds after it fired; states only."""
    max_triggers: int | None = Field(default=None, ge=1, le=100_000)
    fire_if_true_now: bool = False
    """Fire at once when the condition already holds; otherwise it waits for it to become true."""
    missed: Literal["fire_late", "ignore"] = "fire_late"
    """What happens with crossings while the service was away: fire with `late`, or not."""
    message: MessageTemplate | None = None
    """Text with the fixed variables {symbol} {source} {price} {threshold} {condition} {direction} {time} {note} {rule_id} {count}."""
    note: str | None = Field(default=None, max_length=500)
    webhook_ids: list[WebhookId] = Field(default_factory=list, max_length=5)


def _condition_tag(value: Any) -> str:
    return "short" if isinstance(value, str) else "full"


AnyCondition = Annotated[
    Annotated[ShortCondition, Tag("short")] | Annotated[Condition, Tag("full")],
    Discriminator(_condition_tag),
]


class AlertCreate(RuleOptions):
    """A new rule. Short: `symbol`, `condition` above|below|cross and `price`. Full: `condition` as an object."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {"symbol": "BTC", "condition": "above", "price": "70000"},
                {
                    "symbol": "BTC-USDT",
                    "source": "binance",
                    "condition": {"type": "price_cross", "value": "70000"},
                    "trigger": "recurring",
                    "cooldown_seconds": 600,
                },
            ]
        },
    )

    symbol: SymbolText | None = None
    """The market; not needed for rules on portfolios, and optional for listings."""
    condition: AnyCondition
    price: Price | None = None
    """The threshold of the short form, and only there."""
    webhook_url: Url | None = None
    """Makes (or finds) a webhook endpoint of yours with this address; its secret is in the answer when it is new."""

    @model_validator(mode="after")
    def _consistent(self) -> AlertCreate:
        if isinstance(self.condition, str) != (self.price is not None):
            raise ValueError('price goes with the short form: condition "above", "below" or "cross"')
        if self.never_expires and self.expires_at is not None:
            raise ValueError("expires_at and never_expires exclude each other")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs a time zone, e.g. 2030-01-01T00:00:00Z")
        if self.cooldown_seconds is not None and self.trigger != "recurring":
            raise ValueError('cooldown_seconds goes with trigger "recurring"')
        if self.bar_interval is not None and not self.trigger.startswith("once_per_bar"):
            raise ValueError('bar_interval goes with trigger "once_per_bar" or "once_per_bar_close"')
        if not isinstance(self.condition, str):
            self._check_states(self.condition)
        elif self.condition == "cross" and (self.for_seconds or self.notify_resolved):
            raise ValueError("for_seconds and notify_resolved need a state (above, below), not a cross")
        return self

    def _check_states(self, condition: Any) -> None:
        leaves = leaves_of(condition)
        if (self.for_seconds or self.notify_resolved) and not all(is_state(leaf) for leaf in leaves):
            raise ValueError("for_seconds and notify_resolved need a state, not a cross, signal or listing")
        if self.hysteresis is not None and isinstance(condition, Composite):
            raise ValueError("hysteresis goes with a single condition")


class AlertUpdate(Body):
    """A change of a rule: what is given replaces what was. A new condition, symbol or source arms the rule afresh."""

    symbol: SymbolText | None = None
    source: SourceText | None = None
    condition: Condition | None = None
    trigger: Trigger | None = None
    bar_interval: RuleInterval | None = None
    cooldown_seconds: int | None = Field(default=None, ge=MIN_COOLDOWN_SECONDS, le=30 * 86_400)
    hysteresis: Hysteresis | None = None
    for_seconds: int | None = Field(default=None, ge=0, le=86_400)
    expires_at: datetime | None = None
    notify_resolved: bool | None = None
    max_triggers: int | None = Field(default=None, ge=1, le=100_000)
    missed: Literal["fire_late", "ignore"] | None = None
    message: MessageTemplate | None = None
    note: str | None = Field(default=None, max_length=500)
    webhook_ids: list[WebhookId] | None = Field(default=None, max_length=5)


class Snooze(Body):
    """How long a rule stays silent."""

    seconds: int = Field(ge=1, le=30 * 86_400, examples=[3600])


class CreatedWebhook(View):
    """The endpoint that `webhook_url` made or found; `secret` only when it is new, and never again."""

    id: str
    url: str
    created: bool
    secret: str | None = None


class AlertView(View):
    """A rule as it stands."""

    id: RuleId
    state: RuleState
    symbol: str | None
    condition: Condition
    source: str
    trigger: Trigger
    bar_interval: RuleInterval | None = None
    cooldown_seconds: int | None = None
    hysteresis: Hysteresis | None = None
    for_seconds: int = 0
    expires_at: datetime | None = None
    notify_resolved: bool = False
    max_triggers: int | None = None
    missed: str = "fire_late"
    message: str | None = None
    note: str | None = None
    webhook_ids: list[str] = []
    snoozed_until: datetime | None = None
    triggered_count: int = 0
    last_triggered_at: datetime | None = None
    created_price: Decimal | None = None
    """The price when the rule was made or armed, None when it was not known."""
    created_at: datetime
    updated_at: datetime
    version: int
    """Rises with every change; `If-Match` takes it as `"<version>"`."""


class AlertCreated(AlertView):
    """A new rule: whether its condition holds already, and the endpoint that was made for it."""

    currently_true: bool | None
    """None: not known (no price yet, or the condition is a moment)."""
    webhook: CreatedWebhook | None = None


class AlertPage(View):
    """Rules, newest first."""

    data: list[AlertView]
    next_cursor: str | None = None


class AlertQuery(Body):
    """Filters of the list of rules."""

    state: RuleState | None = None
    symbol: SymbolText | None = None
    type: str | None = Field(default=None, max_length=40)
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)


class AlertEventView(View):
    """Something that happened to a rule. `id` and `dedupe_key` are stable over repeats."""

    id: str
    type: str
    alert_id: str
    symbol: str
    source: str
    condition: str
    message: str
    price: Decimal | None = None
    threshold: Decimal | None = None
    late: bool = False
    simulated: bool = False
    dedupe_key: str
    at: datetime
    created_at: datetime
    acked_at: datetime | None = None
    data: dict[str, Any] = {}


class AlertEventPage(View):
    """Events, oldest first after `since`, else newest first."""

    data: list[AlertEventView]
    next_cursor: str | None = None


class EventQuery(Body):
    """Which events. `unacked` with no `since` gives those of the last 24 hours that nobody acknowledged."""

    since: datetime | None = None
    unacked: bool = False
    type: EventType | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)


class DryRunRequest(AlertCreate):
    """A rule that is not stored: is it valid, does it hold now, and when would it have fired."""

    days: int = Field(default=30, ge=1, le=90)


class ValidateResult(View):
    """Whether a rule would be taken."""

    valid: bool
    symbol: str | None
    currently_true: bool | None
    price: Decimal | None = None
    warnings: list[str] = []


class PreviewFiring(View):
    """One firing in the past: the minute in which it would have happened."""

    at: datetime
    price: Decimal
    direction: str


class PreviewResult(View):
    """When a rule would have fired over stored candles."""

    symbol: str
    interval: str
    from_: datetime = Field(alias="from")
    to: datetime
    candles: int
    count: int
    firings: list[PreviewFiring]
    """The newest 200."""
    currently_true: bool | None
    complete: bool
    """False: candles are missing in the range."""
    took_ms: float

    model_config = ConfigDict(populate_by_name=True)


class WebhookCreate(Body):
    """A new endpoint: https on port 443 or 8443, a public host name."""

    url: Url
    description: str | None = Field(default=None, max_length=200)
    event_types: list[WebhookEventType] = Field(default_factory=list, max_length=8)
    """Which events it wants; all when empty."""


class WebhookUpdate(Body):
    """A change of an endpoint."""

    url: Url | None = None
    description: str | None = Field(default=None, max_length=200)
    event_types: list[WebhookEventType] | None = Field(default=None, max_length=8)
    enabled: bool | None = None


class WebhookView(View):
    """An endpoint. Its secret is never shown again."""

    id: str
    url: str
    description: str | None = None
    event_types: list[str] = []
    enabled: bool
    disabled_reason: str | None = None
    circuit: Literal["closed", "open", "half_open"] = "closed"
    failing_since: datetime | None = None
    last_success_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int


class WebhookCreated(WebhookView):
    """A new endpoint, with its signing secret (`whsec_...`, Standard Webhooks) for this once."""

    secret: str


class WebhookPage(View):
    """Endpoints, newest first."""

    data: list[WebhookView]
    next_cursor: str | None = None


class PageQuery(Body):
    """A page of a list."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)


class RotateSecret(Body):
    """How long the old secret still signs beside the new one."""

    overlap_seconds: int = Field(default=86_400, ge=0, le=7 * 86_400)


class RotatedSecret(View):
    """The new secret, for this once."""

    id: str
    secret: str
    old_valid_until: datetime


class AttemptView(View):
    """One attempt to deliver. `answer` is the first KiB of what came back, for public hosts only."""

    number: int
    at: datetime
    status: int | None = None
    duration_ms: int
    error: str | None = None
    answer: str | None = None


class DeliveryView(View):
    """One message to one endpoint. `webhook_id` header and body are the same at every attempt."""

    id: str
    webhook_id: str
    event_id: str | None
    message_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    created_at: datetime
    finished_at: datetime | None = None


class DeliveryDetail(DeliveryView):
    """A delivery with its log."""

    log: list[AttemptView]


class DeliveryPage(View):
    """Deliveries, newest first."""

    data: list[DeliveryView]
    next_cursor: str | None = None


class DeliveryQuery(PageQuery):
    """Filters of the delivery log."""

    status: DeliveryStatus | None = None


class ReplayQuery(Body):
    """Which deliveries to send again: those made in [`since`, `until`)."""

    since: datetime
    until: datetime | None = None
    only_failed: bool = True


class Replayed(View):
    """How many deliveries were put back into the queue."""

    count: int


class Acked(View):
    """An acknowledged event."""

    id: str
    acked_at: datetime


_RULE = "alerts"
_READ = "alerts:read"
_HOOK = "webhooks"
_TAGS = ("alerts",)
_HOOKS = ("webhooks",)


def _read(path: str, operation: str, summary: str, response: type, *, query: type | None = None) -> RouteSpec:
    return RouteSpec(
        "GET", path, operation, summary, _READ, 1, None, response, query=query, tags=_TAGS, errors=READ_ERRORS
    )


def _write(
    method: Literal["POST", "PATCH", "DELETE"], path: str, operation: str, summary: str, *,
    request: type | None = None, response: type | None = None, status: int = 200, cost: float = 2,
) -> RouteSpec:  # fmt: skip
    return RouteSpec(
        method, path, operation, summary, _RULE, cost, request, response,
        status=status, tags=_TAGS, bucket="writes", errors=WRITE_ERRORS,
    )  # fmt: skip


def _hook(
    method: Literal["GET", "POST", "PATCH", "DELETE"], path: str, operation: str, summary: str, *,
    request: type | None = None, response: type | None = None, status: int = 200, cost: float = 2,
    query: type | None = None,
) -> RouteSpec:  # fmt: skip
    reads = method == "GET"
    return RouteSpec(
        method, path, operation, summary, _HOOK, cost, request, response, status=status, query=query, tags=_HOOKS,
        bucket="reads" if reads else "writes", errors=READ_ERRORS if reads else WRITE_ERRORS,
    )  # fmt: skip


ROUTES: Final[tuple[RouteSpec, ...]] = (
    _write("POST", "/alerts", "create_alert", "Create a rule", request=AlertCreate, response=AlertCreated, status=201),
    _read("/alerts", "list_alerts", "List your rules", AlertPage, query=AlertQuery),
    _write("POST", "/alerts/validate", "validate_alert", "Check a rule without storing it", request=DryRunRequest, response=ValidateResult),
    _write("POST", "/alerts/preview", "preview_alert", "When a rule would have fired", request=DryRunRequest, response=PreviewResult, cost=5),
    _read("/alerts/{alert_id}", "get_alert", "One rule", AlertView),
    _write("PATCH", "/alerts/{alert_id}", "update_alert", "Change a rule", request=AlertUpdate, response=AlertView),
    _write("DELETE", "/alerts/{alert_id}", "delete_alert", "Delete a rule and its events", status=204),
    _write("POST", "/alerts/{alert_id}/pause", "pause_alert", "Stop a rule until resumed", response=AlertView),
    _write("POST", "/alerts/{alert_id}/resume", "resume_alert", "Arm a paused or snoozed rule", response=AlertView),
    _write("POST", "/alerts/{alert_id}/snooze", "snooze_alert", "Silence a rule for a time", request=Snooze, response=AlertView),
    _write("POST", "/alerts/{alert_id}/rearm", "rearm_alert", "Arm a rule that completed, expired or failed", response=AlertView),
    _write("POST", "/alerts/{alert_id}/test", "test_alert", "Send a test event through the rule's channels", response=AlertEventView, cost=5),
    _read("/alerts/{alert_id}/events", "list_events_of_alert", "What happened to a rule", AlertEventPage, query=EventQuery),
    _read("/alert-events", "list_alert_events", "What happened to your rules", AlertEventPage, query=EventQuery),
    _read("/alert-events/{event_id}", "get_alert_event", "One event", AlertEventView),
    _write("POST", "/alert-events/{event_id}/ack", "ack_alert_event", "Acknowledge an event", response=Acked, cost=1),
    _hook("POST", "/webhooks", "create_webhook", "Create an endpoint", request=WebhookCreate, response=WebhookCreated, status=201),
    _hook("GET", "/webhooks", "list_webhooks", "List your endpoints", response=WebhookPage, query=PageQuery, cost=1),
    _hook("GET", "/webhooks/{webhook_id}", "get_webhook", "One endpoint", response=WebhookView, cost=1),
    _hook("PATCH", "/webhooks/{webhook_id}", "update_webhook", "Change an endpoint", request=WebhookUpdate, response=WebhookView),
    _hook("DELETE", "/webhooks/{webhook_id}", "delete_webhook", "Delete an endpoint; its open deliveries are cancelled", status=204),
    _hook("POST", "/webhooks/{webhook_id}/test", "test_webhook", "Send a test message", response=DeliveryView, status=202, cost=5),
    _hook("POST", "/webhooks/{webhook_id}/rotate-secret", "rotate_webhook_secret", "Replace the signing secret", request=RotateSecret, response=RotatedSecret, cost=5),
    _hook("POST", "/webhooks/{webhook_id}/enable", "enable_webhook", "Enable an endpoint that was disabled", response=WebhookView, cost=5),
    _hook("GET", "/webhooks/{webhook_id}/deliveries", "list_webhook_deliveries", "The delivery log", response=DeliveryPage, query=DeliveryQuery, cost=1),
    _hook("GET", "/webhooks/{webhook_id}/deliveries/{delivery_id}", "get_webhook_delivery", "One delivery with its attempts", response=DeliveryDetail, cost=1),
    _hook("POST", "/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", "replay_webhook_delivery", "Send one delivery again", response=DeliveryView, status=202, cost=5),
    _hook("POST", "/webhooks/{webhook_id}/replay", "replay_webhook_deliveries", "Send the deliveries of a time range again", response=Replayed, status=202, cost=5, query=ReplayQuery),
)  # fmt: skip
"""Every endpoint of the alerts service; the gateway derives its own from it."""
