"""The conditions of an alert rule as clients write them: one discriminated union, data only, nothing is ever evaluated as code."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from cryptopulse.common.contracts.intervals import FIXED_MS

MAX_LEAVES: Final = 5
MAX_DEPTH: Final = 3

Price = Annotated[Decimal, Field(gt=0, max_digits=42, decimal_places=24, examples=["70000"])]
Percent = Annotated[Decimal, Field(gt=0, le=100_000, max_digits=16, decimal_places=8, examples=["5"])]
SymbolText = Annotated[str, Field(min_length=1, max_length=64, examples=["BTC", "BTC-USDT"])]
SourceText = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,32}$", examples=["consolidated", "binance"])]
OutputText = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", examples=["rsi_14", "macd"])]
RuleInterval = Literal["1m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w", "1M"]
Window = Literal["1m", "5m", "15m", "30m", "1h", "4h", "6h", "12h", "1d"]
WINDOW_MS: Final[dict[str, int]] = {name: FIXED_MS[name] for name in Window.__args__}  # type: ignore[attr-defined]  # typing keeps a Literal's values there


class _Condition(BaseModel):
    """What all conditions share: unknown fields are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _MarketCondition(_Condition):
    """A condition on a market. `symbol` and `source` default to the rule's own."""

    symbol: SymbolText | None = None
    """The market of this leaf, when it is not the rule's."""
    source: SourceText | None = None
    """`consolidated` or a venue, when it is not the rule's."""


class PriceThreshold(_MarketCondition):
    """The price reaches `value`: from below (`price_above`, `price_cross_up`), from above (`price_below`,
    `price_cross_down`), or from either side (`price_cross`). `above` means at or above, `below` at or below.

    `above` and `below` are states (they can hold `for` a time, resolve, and be leaves of a composite); crosses are moments.
    """

    type: Literal["price_above", "price_below", "price_cross_up", "price_cross_down", "price_cross"]
    value: Price


class PriceRange(_MarketCondition):
    """The price enters [`low`, `high`] or leaves it; the bounds belong to the range."""

    type: Literal["price_enter_range", "price_exit_range"]
    low: Price
    high: Price

    @model_validator(mode="after")
    def _ordered(self) -> PriceRange:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class PctChange(_MarketCondition):
    """The price moved by at least `pct` percent: against the extreme of a rolling `window`, or since the rule was made.

    `up` compares with the lowest price of the window, `down` with the highest, `any` with both.
    """

    type: Literal["pct_change"]
    pct: Percent
    direction: Literal["up", "down", "any"] = "any"
    ref: Literal["rolling", "since_created"] = "rolling"
    window: Window | None = None
    """Required with `rolling`."""

    @model_validator(mode="after")
    def _window_given(self) -> PctChange:
        if (self.ref == "rolling") != (self.window is not None):
            raise ValueError("window goes with ref=rolling, and only with it")
        return self


class Trailing(_MarketCondition):
    """The price fell `pct` percent below its highest since the rule was armed (`from_` high), or rose above its lowest."""

    type: Literal["trailing"]
    pct: Annotated[Decimal, Field(gt=0, lt=100, max_digits=12, decimal_places=8)]
    from_: Literal["high", "low"] = Field(default="high", alias="from")

    model_config = ConfigDict(populate_by_name=True)


class VolumeSpike(_MarketCondition):
    """A closed bar's volume is at least `factor` times the mean of the `bars` bars before it."""

    type: Literal["volume_spike"]
    factor: Annotated[Decimal, Field(gt=1, le=1000, max_digits=12, decimal_places=6)]
    interval: RuleInterval = "5m"
    bars: int = Field(default=20, ge=2, le=200)


class IndicatorCondition(_MarketCondition):
    """An indicator output against a value or another output of the same bar, on closed bars (`close`) or forming ones (`live`)."""

    type: Literal["indicator"]
    output: OutputText
    interval: RuleInterval = "1h"
    op: Literal["above", "below", "cross_up", "cross_down", "cross"]
    value: Annotated[Decimal, Field(max_digits=42, decimal_places=18)] | None = None
    other: OutputText | None = None
    on: Literal["close", "live"] = "close"

    @model_validator(mode="after")
    def _one_side(self) -> IndicatorCondition:
        if (self.value is None) == (self.other is None):
            raise ValueError("give either value or other")
        if self.other == self.output:
            raise ValueError("other must differ from output")
        return self


class SignalCondition(_MarketCondition):
    """A signal of the analytics (`macd_cross`, `golden_cross`, ...), when confirmed at the close, or already when pending."""

    type: Literal["signal"]
    kind: OutputText
    interval: RuleInterval | None = None
    direction: Literal["up", "down"] | None = None
    status: Literal["confirmed", "pending"] = "confirmed"


class Spread(_Condition):
    """Two venues' prices of the symbol differ by at least `pct` percent of their mean."""

    type: Literal["spread"]
    venue_a: SourceText
    venue_b: SourceText
    pct: Percent
    symbol: SymbolText | None = None

    @model_validator(mode="after")
    def _two_venues(self) -> Spread:
        if self.venue_a == self.venue_b:
            raise ValueError("venue_a and venue_b must differ")
        return self


class StaleFeed(_MarketCondition):
    """Nothing was received for the symbol from its source for `seconds`."""

    type: Literal["stale_feed"]
    seconds: int = Field(ge=5, le=86_400)


class PortfolioCondition(_Condition):
    """A portfolio's value, unrealised P&L in percent, or the share of one asset in percent is above or below `value`."""

    type: Literal["portfolio_value", "portfolio_pnl_pct", "portfolio_allocation_pct"]
    portfolio_id: int = Field(gt=0)
    op: Literal["above", "below"]
    value: Annotated[Decimal, Field(max_digits=42, decimal_places=18)]
    asset: SymbolText | None = None
    """The asset whose share is meant; required with `portfolio_allocation_pct`."""

    @model_validator(mode="after")
    def _asset_given(self) -> PortfolioCondition:
        if (self.type == "portfolio_allocation_pct") != (self.asset is not None):
            raise ValueError("asset goes with portfolio_allocation_pct, and only with it")
        return self


class NewListing(_Condition):
    """A pair appears in the catalogue; narrowed by `base`, `quote` or `venue` when given."""

    type: Literal["new_listing"]
    base: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,15}$")] | None = None
    quote: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,10}$")] | None = None
    venue: SourceText | None = None


class Composite(_Condition):
    """`all`, `any` or `not` (exactly one) of other conditions: at most 5 leaves, 3 levels deep, states only."""

    type: Literal["all", "any", "not"]
    conditions: list[Condition] = Field(min_length=1, max_length=MAX_LEAVES)

    @model_validator(mode="after")
    def _bounded(self) -> Composite:
        if self.type == "not" and len(self.conditions) != 1:
            raise ValueError("not takes exactly one condition")
        if leaf_count(self) > MAX_LEAVES:
            raise ValueError(f"at most {MAX_LEAVES} leaves")
        if depth_of(self) > MAX_DEPTH:
            raise ValueError(f"at most {MAX_DEPTH} levels")
        for leaf in leaves_of(self):
            if not is_state(leaf):
                raise ValueError(
                    f"{leaf.type} is a moment, not a state: use above/below or a range in a composite"
                )
        return self


def _tag(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _FAMILY.get(kind) if isinstance(kind, str) else None


_FAMILY: Final[dict[str, str]] = {
    "price_above": "price",
    "price_below": "price",
    "price_cross_up": "price",
    "price_cross_down": "price",
    "price_cross": "price",
    "price_enter_range": "range",
    "price_exit_range": "range",
    "pct_change": "pct_change",
    "trailing": "trailing",
    "volume_spike": "volume_spike",
    "indicator": "indicator",
    "signal": "signal",
    "spread": "spread",
    "stale_feed": "stale_feed",
    "portfolio_value": "portfolio",
    "portfolio_pnl_pct": "portfolio",
    "portfolio_allocation_pct": "portfolio",
    "new_listing": "new_listing",
    "all": "composite",
    "any": "composite",
    "not": "composite",
}
CONDITION_TYPES: Final[tuple[str, ...]] = tuple(_FAMILY)

Leaf = (
    PriceThreshold
    | PriceRange
    | PctChange
    | Trailing
    | VolumeSpike
    | IndicatorCondition
    | SignalCondition
    | Spread
    | StaleFeed
    | PortfolioCondition
    | NewListing
)
Condition = Annotated[
    Annotated[PriceThreshold, Tag("price")]
    | Annotated[PriceRange, Tag("range")]
    | Annotated[PctChange, Tag("pct_change")]
    | Annotated[Trailing, Tag("trailing")]
    | Annotated[VolumeSpike, Tag("volume_spike")]
    | Annotated[IndicatorCondition, Tag("indicator")]
    | Annotated[SignalCondition, Tag("signal")]
    | Annotated[Spread, Tag("spread")]
    | Annotated[StaleFeed, Tag("stale_feed")]
    | Annotated[PortfolioCondition, Tag("portfolio")]
    | Annotated[NewListing, Tag("new_listing")]
    | Annotated[Composite, Tag("composite")],
    Discriminator(
        _tag,
        custom_error_type="unknown_condition",
        custom_error_message="condition.type must be one of " + ", ".join(_FAMILY),
    ),
]
Composite.model_rebuild()


def leaves_of(condition: Leaf | Composite) -> list[Leaf]:
    """The leaves from left to right; a simple condition is its own leaf."""
    if isinstance(condition, Composite):
        return [leaf for child in condition.conditions for leaf in leaves_of(child)]
    return [condition]


def leaf_count(condition: Leaf | Composite) -> int:
    """How many leaves a condition has."""
    return len(leaves_of(condition))


def depth_of(condition: Leaf | Composite) -> int:
    """How many levels a condition has; a leaf has one."""
    if isinstance(condition, Composite):
        return 1 + max(depth_of(child) for child in condition.conditions)
    return 1


def is_state(leaf: Leaf) -> bool:
    """True for conditions that hold over time; False for moments: crosses, signals, spikes, listings."""
    if isinstance(leaf, PriceThreshold):
        return not leaf.type.startswith("price_cross")
    if isinstance(leaf, IndicatorCondition):
        return not leaf.op.startswith("cross")
    return not isinstance(leaf, (SignalCondition, NewListing, VolumeSpike, Trailing))
