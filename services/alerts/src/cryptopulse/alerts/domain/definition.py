"""What a rule is, as stored: the condition with canonical symbols, and how the rule behaves."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from cryptopulse.common.contracts.http.alert_conditions import (
    Composite,
    Condition,
    IndicatorCondition,
    Leaf,
    NewListing,
    PctChange,
    PortfolioCondition,
    PriceRange,
    PriceThreshold,
    RuleInterval,
    SignalCondition,
    Spread,
    StaleFeed,
    Trailing,
    VolumeSpike,
    leaves_of,
)
from cryptopulse.common.contracts.http.alerts import DEFAULT_COOLDOWN_SECONDS, Hysteresis, Trigger
from cryptopulse.common.contracts.topics import shard_of
from cryptopulse.common.contracts.values import CONSOLIDATED, base_of

GLOBAL: Final = "*"
"""The base of rules that belong to no market: portfolios, signals, listings. Their home is shard 0."""

ACTIVE_STATES: Final = ("armed", "pending", "firing", "cooldown", "recovering", "snoozed")
"""The states in which a rule is evaluated; a snoozed one is followed, and silent."""


class RuleDefinition(BaseModel):
    """The definition of a rule. `symbol` and every leaf's symbol are canonical; `condition` is never the short form."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    symbol: str | None = None
    """None for rules on no market: portfolios and new listings."""
    source: str = CONSOLIDATED
    condition: Condition
    trigger: Trigger = "once"
    bar_interval: RuleInterval | None = None
    cooldown_seconds: int | None = None
    hysteresis: Hysteresis | None = None
    for_seconds: int = 0
    notify_resolved: bool = False
    max_triggers: int | None = None
    missed: Literal["fire_late", "ignore"] = "fire_late"
    message: str | None = None
    note: str | None = None

    @property
    def bar(self) -> str:
        """The bar of the once-per-bar triggers."""
        return self.bar_interval or "1m"

    @property
    def cooldown_ms(self) -> int:
        """The least time between two firings; 0 without."""
        if self.trigger != "recurring":
            return 0
        return (self.cooldown_seconds or DEFAULT_COOLDOWN_SECONDS) * 1000

    @property
    def leaves(self) -> list[Leaf]:
        """The leaves of the condition, from left to right."""
        return leaves_of(self.condition)

    @property
    def is_composite(self) -> bool:
        """True for all, any, not."""
        return isinstance(self.condition, Composite)


def symbol_of_leaf(leaf: Leaf, definition: RuleDefinition) -> str:
    """The market that a leaf looks at; empty for portfolios and listings."""
    if isinstance(leaf, (PortfolioCondition, NewListing)):
        return ""
    return leaf.symbol or definition.symbol or ""


def source_of_leaf(leaf: Leaf, definition: RuleDefinition) -> str:
    """The source that a leaf looks at."""
    if isinstance(leaf, (PortfolioCondition, NewListing, Spread)):
        return definition.source
    return leaf.source or definition.source


def home_base(definition: RuleDefinition) -> str:
    """The asset whose shard evaluates the rule: that of the first leaf, `GLOBAL` for rules on no market."""
    first = definition.leaves[0]
    if isinstance(first, (PortfolioCondition, NewListing, SignalCondition)):
        return GLOBAL
    return base_of(symbol_of_leaf(first, definition))


def home_shard(base: str, shards: int) -> int:
    """The shard that evaluates rules of this home."""
    return 0 if base == GLOBAL else shard_of(base, shards)


def describe(definition: RuleDefinition) -> str:
    """The condition in a few words, for events and messages: `price_above 70000`."""
    return _describe(definition.condition)


def _describe(condition: Leaf | Composite) -> str:  # noqa: PLR0911, C901 - one line per kind of condition
    match condition:
        case PriceThreshold():
            return f"{condition.type} {plain_number(condition.value)}"
        case PriceRange():
            return f"{condition.type} {plain_number(condition.low)}..{plain_number(condition.high)}"
        case PctChange():
            return f"pct_change {condition.direction} {plain_number(condition.pct)}% {condition.window or 'since created'}"
        case Trailing():
            return f"trailing {plain_number(condition.pct)}% from {condition.from_}"
        case VolumeSpike():
            return f"volume_spike {plain_number(condition.factor)}x {condition.interval}"
        case IndicatorCondition():
            other = condition.other or plain_number(condition.value or Decimal(0))
            return f"{condition.output} {condition.op} {other} {condition.interval}"
        case SignalCondition():
            return f"signal {condition.kind}"
        case Spread():
            return f"spread {condition.venue_a}/{condition.venue_b} {plain_number(condition.pct)}%"
        case StaleFeed():
            return f"stale_feed {condition.seconds}s"
        case PortfolioCondition():
            return f"{condition.type} {condition.op} {plain_number(condition.value)}"
        case NewListing():
            return "new_listing"
        case Composite():
            return f"{condition.type}({', '.join(_describe(child) for child in condition.conditions)})"


def plain_number(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
