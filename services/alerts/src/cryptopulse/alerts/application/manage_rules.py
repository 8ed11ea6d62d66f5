"""Rules of a user: made, changed, silenced, armed again; and whether a condition holds now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.application.manage_webhooks import WebhookManager
from cryptopulse.alerts.application.ports import MarketReader, NewRule, Portfolios, RuleRepository, RuleRow
from cryptopulse.alerts.domain import composite
from cryptopulse.alerts.domain.cooldown import Runtime
from cryptopulse.alerts.domain.definition import (
    RuleDefinition,
    source_of_leaf,
    symbol_of_leaf,
)
from cryptopulse.alerts.domain.evaluation import indicator_value
from cryptopulse.alerts.domain.thresholds import Number
from cryptopulse.alerts.domain.wiring import LeafView, Metric
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.alert_conditions import (
    Composite,
    IndicatorCondition,
    Leaf,
    NewListing,
    PctChange,
    PortfolioCondition,
    PriceRange,
    PriceThreshold,
    Spread,
    is_state,
)
from cryptopulse.common.contracts.http.alerts import (
    DEFAULT_COOLDOWN_SECONDS,
    DEFAULT_LIFE_DAYS,
    AlertCreate,
    AlertUpdate,
    AlertView,
    CreatedWebhook,
    RuleState,
)
from cryptopulse.common.contracts.resolver import AmbiguousSymbolError, Resolver, UnknownSymbolError
from cryptopulse.common.contracts.values import CONSOLIDATED, base_of
from cryptopulse.common.errors import Conflict, FieldError, Invalid

CAPS: Final[dict[str, int]] = {"free": 50, "pro": 500, "enterprise": 5_000}
DEFAULT_CAP: Final = 50
_OPTIONS: Final = (
    "trigger", "bar_interval", "cooldown_seconds", "for_seconds", "max_triggers", "missed",
    "notify_resolved", "message", "note", "hysteresis",
)  # fmt: skip
_NEEDED: Final = frozenset({"condition", "source", "trigger"})
"""What a change cannot take away by giving null."""
SHORT: Final = {"above": "price_above", "below": "price_below", "cross": "price_cross"}


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How a condition stands now: whether it holds (None: unknown, or a moment), and the price it was judged by."""

    true: bool | None
    price: Decimal | None


class RuleManager:
    """Use cases of rules. The repository checks the owner in every statement."""

    def __init__(
        self,
        repository: RuleRepository,
        webhooks: WebhookManager,
        market: MarketReader,
        portfolios: Portfolios,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._webhooks = webhooks
        self._market = market
        self._portfolios = portfolios
        self._clock = clock

    async def create(
        self, user_id: str, tier: str, body: AlertCreate
    ) -> tuple[RuleRow, Standing, CreatedWebhook | None]:
        """A new rule, how it stands, and the endpoint that its `webhook_url` made or found."""
        definition = await self.definition(body)
        await self.check_portfolios(user_id, definition)
        standing = await self.standing(user_id, definition)
        expires = self._expiry(body)
        hook = None
        if body.webhook_url is not None:
            hook = await self._webhooks.find_or_create(user_id, tier, body.webhook_url)
        wanted = dict.fromkeys([*body.webhook_ids, *([hook.id] if hook else [])])
        runtime = Runtime(truth=standing.true, fire_now=body.fire_if_true_now and bool(standing.true))
        row = await self._repository.create(
            user_id,
            tier,
            NewRule(
                id=new_id("al", self._clock.now_ms()),
                definition=definition,
                webhook_ids=list(wanted),
                expires_at=expires,
                created_price=standing.price,
                runtime=runtime.as_json(),
            ),
            cap=CAPS.get(tier, DEFAULT_CAP),
        )
        return row, standing, hook

    async def update(self, user_id: str, rule_id: str, body: AlertUpdate, expected: int | None) -> RuleRow:
        """Change what is given; a new condition, symbol, source or behaviour arms the rule afresh."""
        row = await self._repository.get(user_id, rule_id)
        given = body.model_dump(exclude_unset=True)
        old = row.definition
        merged = _merged(old, given)
        definition = await self.definition(merged)
        if "condition" in given:  # else it was checked when it was made, and may be gone since
            await self.check_portfolios(user_id, definition)
        rearm = bool({"condition", "symbol", "source", "trigger", "hysteresis", "for_seconds"} & set(given))
        changed = dataclasses.replace(
            row,
            definition=definition,
            webhook_ids=list(dict.fromkeys(given.get("webhook_ids", row.webhook_ids) or ())),
            expires_at=self._given_expiry(given, row),
        )
        if rearm:
            changed = await self._armed(user_id, changed)
        return await self._repository.replace(user_id, changed, expected=expected, rearm=rearm)

    async def pause(self, user_id: str, rule_id: str) -> RuleRow:
        """Stop until resumed."""
        row = await self._repository.get(user_id, rule_id)
        if row.state in {"completed", "expired"}:
            raise Conflict(f"The alert is {row.state}: rearm it first.", code="alert-over")
        if row.state == "paused":
            return row
        return await self._repository.replace(
            user_id, dataclasses.replace(row, state="paused", snoozed_until=None), expected=None, rearm=False
        )

    async def resume(self, user_id: str, rule_id: str) -> RuleRow:
        """Arm a paused or snoozed rule as of now; what it counted stays."""
        row = await self._repository.get(user_id, rule_id)
        if row.state in {"completed", "expired", "error"}:
            raise Conflict(f"The alert is {row.state}: rearm it.", code="alert-over")
        if row.state not in {"paused", "snoozed"}:
            return row
        counted = {
            name: row.runtime[name]
            for name in ("fired", "last_fired_ms", "last_bar_ms")
            if name in row.runtime
        }
        armed = await self._armed(user_id, row)
        armed = dataclasses.replace(armed, runtime=armed.runtime | counted)
        return await self._repository.replace(user_id, armed, expected=None, rearm=True)

    async def snooze(self, user_id: str, rule_id: str, seconds: int) -> RuleRow:
        """Silent for a time; what happens meanwhile is not told later."""
        row = await self._repository.get(user_id, rule_id)
        if row.state in {"completed", "expired", "error", "paused"}:
            raise Conflict(f"The alert is {row.state}.", code="alert-over")
        until = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + timedelta(seconds=seconds)
        return await self._repository.replace(
            user_id,
            dataclasses.replace(row, state="snoozed", snoozed_until=until),
            expected=None,
            rearm=False,
        )

    async def rearm(self, user_id: str, rule_id: str) -> RuleRow:
        """Begin anew: armed, nothing fired yet; an expiry in the past is set to 90 days from now."""
        row = await self._repository.get(user_id, rule_id)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        if row.expires_at is not None and row.expires_at <= now:
            row = dataclasses.replace(row, expires_at=now + timedelta(days=DEFAULT_LIFE_DAYS))
        return await self._repository.replace(
            user_id, await self._armed(user_id, row), expected=None, rearm=True
        )

    # --- definitions -------------------------------------------------------------------------------------------------

    async def definition(self, body: AlertCreate) -> RuleDefinition:
        """The definition with canonical symbols. Raises `Invalid` that names the field and the fix."""
        resolver = await self._market.resolver()
        condition: Any = body.condition
        if isinstance(condition, str):
            condition = PriceThreshold(type=SHORT[condition], value=body.price)  # type: ignore[arg-type]  # checked by the request
        symbol = None if body.symbol is None else resolve(resolver, body.symbol, "/symbol")
        source = body.source
        if "source" not in body.model_fields_set and symbol is not None:
            source = _default_source(resolver, symbol)
        definition = RuleDefinition(
            symbol=symbol,
            source=source,
            condition=canonical(resolver, condition),
            trigger=body.trigger,
            bar_interval=body.bar_interval or ("1m" if body.trigger.startswith("once_per_bar") else None),
            cooldown_seconds=(body.cooldown_seconds or DEFAULT_COOLDOWN_SECONDS) if body.trigger == "recurring" else None,
            hysteresis=body.hysteresis,
            for_seconds=body.for_seconds,
            notify_resolved=body.notify_resolved,
            max_triggers=body.max_triggers,
            missed=body.missed,
            message=body.message,
            note=body.note,
        )  # fmt: skip
        check(definition)
        return definition

    async def check_portfolios(self, user_id: str, definition: RuleDefinition) -> None:
        """Raises `Invalid` for a portfolio that is not the user's, as for one that is not there."""
        for leaf in definition.leaves:
            if isinstance(leaf, PortfolioCondition) and not await self._portfolios.has(
                user_id, leaf.portfolio_id
            ):
                fix = "name one of your portfolios: GET /v1/portfolios"
                raise Invalid(
                    f"There is no portfolio {leaf.portfolio_id}.",
                    code="unknown-portfolio",
                    errors=(FieldError("/condition/portfolio_id", "unknown-portfolio", fix),),
                )

    async def symbol(self, text: str) -> str:
        """What a filter names; a name that nobody knows is taken as it is, and finds nothing."""
        try:
            return (await self._market.resolver()).resolve(text).symbol
        except (UnknownSymbolError, AmbiguousSymbolError):
            return text.upper()

    async def standing(self, user_id: str, definition: RuleDefinition) -> Standing:
        """How the condition stands now, from the latest stored values."""
        values: dict[Metric, Number | None] = {}
        price: Decimal | None = None
        views = [LeafView(leaf, definition, user_id) for leaf in definition.leaves]
        for view in views:
            symbol = symbol_of_leaf(view.leaf, definition)
            source = source_of_leaf(view.leaf, definition)
            if price is None and symbol and not isinstance(view.leaf, Spread):
                found = await self._market.price(symbol, source)
                price = None if found is None or found.status == "stale" else found.price
            for metric in view.metrics:
                values[metric] = await self._value(metric)
        if price is not None:
            views = [LeafView(view.leaf, definition, user_id, price) for view in views]
        truths = [view.holds(values.get) if is_state(view.leaf) else None for view in views]
        return Standing(composite.truth(definition.condition, truths), price)

    async def _value(self, metric: Metric) -> Number | None:
        if metric.kind in {"price", "close"}:
            found = await self._market.price(metric.symbol, metric.source)
            return None if found is None else found.price
        if metric.kind == "indicator":
            update = await self._market.indicator(metric.symbol, metric.source, str(metric.detail[0]))
            return None if update is None else indicator_value(update, metric)
        if metric.kind == "spread":
            prices = [await self._market.price(metric.symbol, str(venue)) for venue in metric.detail]
            one, two = prices
            if one is None or two is None:
                return None
            return float(abs(one.price - two.price) / (one.price + two.price) * 200)
        if metric.kind == "quiet":
            found = await self._market.price(metric.symbol, metric.source)
            return None if found is None else max(0, self._clock.now_us() - found.received_us) / 1_000_000
        return None

    async def _armed(self, user_id: str, row: RuleRow) -> RuleRow:
        standing = await self.standing(user_id, row.definition)
        return dataclasses.replace(
            row,
            state="armed",
            snoozed_until=None,
            created_price=standing.price,
            runtime=Runtime(truth=standing.true).as_json(),
        )

    def _expiry(self, body: AlertCreate) -> datetime | None:
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        if body.never_expires:
            return None
        if body.expires_at is not None and body.expires_at <= now:
            raise Invalid(
                "expires_at is in the past.",
                errors=(FieldError("/expires_at", "in-the-past", "give a later time"),),
            )
        return body.expires_at or now + timedelta(days=DEFAULT_LIFE_DAYS)

    def _given_expiry(self, given: Mapping[str, Any], row: RuleRow) -> datetime | None:
        if "expires_at" not in given:
            return row.expires_at
        expires: datetime | None = given["expires_at"]
        if expires is not None and (
            expires.tzinfo is None or expires <= datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        ):
            raise Invalid(
                "expires_at needs a time zone and lies in the future.",
                errors=(FieldError("/expires_at", "not-in-the-future", "give a later time with a zone"),),
            )
        return expires


def _merged(old: RuleDefinition, given: Mapping[str, Any]) -> AlertCreate:
    """The rule as it would be created now. Raises `Invalid` that names the fields that do not go together."""
    kept = {
        "condition": old.condition.model_dump(mode="json", by_alias=True),
        "symbol": old.symbol,
        "source": old.source,
        **{name: getattr(old, name) for name in _OPTIONS},
    }
    trigger = given.get("trigger") or old.trigger
    if trigger != "recurring":
        kept.pop("cooldown_seconds")
    if not trigger.startswith("once_per_bar"):
        kept.pop("bar_interval")
    wanted = kept | {name: value for name, value in given.items() if name in kept or name in _OPTIONS}
    optional = {name: value for name, value in wanted.items() if value is not None or name in _NEEDED}
    try:
        return AlertCreate.model_validate(optional)
    except ValidationError as error:
        faults = tuple(_fault(fault) for fault in error.errors(include_url=False, include_input=False))
        detail = "; ".join(f"{fault.pointer} {fault.detail}" for fault in faults[:3])
        raise Invalid(detail, code="validation-failed", errors=faults) from error


def _fault(fault: Mapping[str, Any]) -> FieldError:
    """A fault of the merged rule, with a pointer into the body that changed it; the union's own tags are left out."""
    place = [str(part) for part in fault["loc"] if part not in {"short", "full"}]
    text = str(fault["msg"]).removeprefix("Value error, ")
    return FieldError(
        "/" + "/".join(place), str(fault["type"]).replace("_", "-"), text[:1].lower() + text[1:]
    )


def resolve(resolver: Resolver, text: str, pointer: str) -> str:
    """The canonical symbol. Raises `Invalid`."""
    try:
        return resolver.resolve(text).symbol
    except (UnknownSymbolError, AmbiguousSymbolError) as error:
        code = "ambiguous-symbol" if isinstance(error, AmbiguousSymbolError) else "unknown-symbol"
        raise Invalid(str(error), code=code, errors=(FieldError(pointer, code, str(error)),)) from error


def canonical(resolver: Resolver, condition: Leaf | Composite) -> Leaf | Composite:
    """The condition with every leaf's own symbol made canonical."""
    if isinstance(condition, Composite):
        children = [canonical(resolver, child) for child in condition.conditions]
        return condition.model_copy(update={"conditions": children})
    if isinstance(condition, PortfolioCondition):
        if condition.asset is None:
            return condition
        asset = base_of(resolve(resolver, condition.asset, "/condition/asset"))
        return condition.model_copy(update={"asset": asset})
    if isinstance(condition, NewListing) or condition.symbol is None:
        return condition
    return condition.model_copy(update={"symbol": resolve(resolver, condition.symbol, "/condition/symbol")})


def check(definition: RuleDefinition) -> None:
    """What the shape of a request cannot say. Raises `Invalid`."""
    first = definition.leaves[0]
    for leaf in definition.leaves:
        if isinstance(leaf, (PortfolioCondition, NewListing)):
            continue
        symbol, source = symbol_of_leaf(leaf, definition), source_of_leaf(leaf, definition)
        if not symbol:
            raise _refused("/symbol", "symbol-needed", "this condition needs a symbol")
        if not isinstance(leaf, Spread) and source == CONSOLIDATED and not symbol.endswith("-USD"):
            raise _refused(
                "/source",
                "no-consolidated-price",
                f"{symbol} has no consolidated price: name a venue, or {base_of(symbol)}-USD",
            )
        elsewhere = base_of(symbol) != base_of(symbol_of_leaf(first, definition))
        if elsewhere and not isinstance(leaf, (PriceThreshold, PriceRange, IndicatorCondition)):
            raise _refused(
                "/condition",
                "leaf-on-another-market",
                f"{leaf.type} must be on the same asset as the first leaf",
            )
        if isinstance(first, PortfolioCondition):
            raise _refused("/condition", "mixed-composite", "portfolio conditions stand alone or together")
    if any(isinstance(leaf, PortfolioCondition) for leaf in definition.leaves) and not isinstance(
        first, PortfolioCondition
    ):
        raise _refused("/condition", "mixed-composite", "portfolio conditions stand alone or together")
    if definition.trigger == "once_per_bar_close" and not all(_closes(leaf) for leaf in definition.leaves):
        raise _refused(
            "/trigger",
            "no-bar-close",
            "once_per_bar_close goes with price thresholds, ranges, and indicators on close",
        )


def _closes(leaf: Leaf) -> bool:
    if isinstance(leaf, PctChange):
        return leaf.ref == "since_created"
    return isinstance(leaf, (PriceThreshold, PriceRange)) or (
        isinstance(leaf, IndicatorCondition) and leaf.on == "close"
    )


def _refused(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(
        detail[:1].upper() + detail[1:] + ".", code=code, errors=(FieldError(pointer, code, detail),)
    )


def _default_source(resolver: Resolver, symbol: str) -> str:
    """Consolidated for X-USD; else the first venue that lists the pair."""
    if symbol.endswith("-USD"):
        return CONSOLIDATED
    pair = resolver.resolve(symbol).pair
    return pair.venues[0] if pair is not None and pair.venues else CONSOLIDATED


def view(row: RuleRow, now_ms: int) -> AlertView:
    """A rule as its owner sees it; states that end by time alone are told as ended."""
    definition, runtime = row.definition, Runtime.from_json(row.runtime)
    state: str = row.state
    last = runtime.last_fired_ms
    snoozing = row.snoozed_until is not None and row.snoozed_until.timestamp() * 1000 > now_ms
    if (state == "snoozed" and not snoozing) or (
        state == "cooldown" and (last is None or now_ms - last >= definition.cooldown_ms)
    ):
        state = "armed"
    shown: RuleState = state  # type: ignore[assignment]  # the table's check holds the states
    return AlertView(
        id=row.id,
        state=shown,
        symbol=definition.symbol,
        condition=definition.condition,
        source=definition.source,
        trigger=definition.trigger,
        bar_interval=definition.bar_interval,
        cooldown_seconds=definition.cooldown_seconds,
        hysteresis=definition.hysteresis,
        for_seconds=definition.for_seconds,
        expires_at=row.expires_at,
        notify_resolved=definition.notify_resolved,
        max_triggers=definition.max_triggers,
        missed=definition.missed,
        message=definition.message,
        note=definition.note,
        webhook_ids=row.webhook_ids,
        snoozed_until=row.snoozed_until if snoozing else None,
        triggered_count=runtime.fired,
        last_triggered_at=None if last is None else datetime.fromtimestamp(last / 1000, UTC),
        created_price=row.created_price,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
    )
