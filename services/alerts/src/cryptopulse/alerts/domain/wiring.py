"""From a leaf to what it watches: metrics, thresholds on them, whether it holds at given values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from cryptopulse.alerts.domain.definition import RuleDefinition, source_of_leaf, symbol_of_leaf
from cryptopulse.alerts.domain.thresholds import Edge, Number
from cryptopulse.common.contracts.http.alert_conditions import (
    WINDOW_MS,
    IndicatorCondition,
    Leaf,
    PctChange,
    PortfolioCondition,
    PriceRange,
    PriceThreshold,
    Spread,
    StaleFeed,
    VolumeSpike,
)
from cryptopulse.common.contracts.http.alerts import Hysteresis


class Metric(NamedTuple):
    """One value over time that rules have thresholds on. `detail` tells metrics of one kind apart."""

    kind: str
    symbol: str
    source: str
    detail: tuple[str | int, ...] = ()


class Role(Enum):
    """What crossing a wire means to its rule."""

    ENTER = 1
    EXIT = 2
    REARM = 3


class WireSpec(NamedTuple):
    """A threshold on a metric, and what crossing it means."""

    metric: Metric
    edge: Edge
    threshold: Number
    role: Role


Values = Callable[[Metric], Number | None]


def price_metric(symbol: str, source: str) -> Metric:
    """The price of a symbol from a source."""
    return Metric("price", symbol, source)


def close_metric(symbol: str, source: str, interval: str) -> Metric:
    """The closes of a series."""
    return Metric("close", symbol, source, (interval,))


@dataclass(frozen=True, slots=True)
class LeafView:
    """A leaf with what it watches, for one rule. `anchor` is the reference of a change since creation."""

    leaf: Leaf
    definition: RuleDefinition
    user_id: str
    anchor: Decimal | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:  # noqa: PLR0911 - one line per kind of leaf
        """The metrics that the leaf needs; none for signals, listings, stale feeds and trailing ones."""
        symbol, source = (
            symbol_of_leaf(self.leaf, self.definition),
            source_of_leaf(self.leaf, self.definition),
        )
        match self.leaf:
            case PriceThreshold() | PriceRange() | PctChange(ref="since_created"):
                if self.definition.trigger == "once_per_bar_close":
                    return (close_metric(symbol, source, self.definition.bar),)
                return (price_metric(symbol, source),)
            case PctChange(direction=direction):
                window = WINDOW_MS[self.leaf.window or "1h"]
                names = ("up", "down") if direction == "any" else (direction,)
                return tuple(Metric("pct", symbol, source, (name, window)) for name in names)
            case IndicatorCondition():
                leaf = self.leaf
                return (
                    Metric(
                        "indicator", symbol, source, (leaf.interval, leaf.on, leaf.output, leaf.other or "")
                    ),
                )
            case VolumeSpike():
                return (Metric("volume", symbol, source, (self.leaf.interval, self.leaf.bars)),)
            case Spread():
                return (Metric("spread", symbol, "", (self.leaf.venue_a, self.leaf.venue_b)),)
            case StaleFeed():
                return (Metric("quiet", symbol, source),)
            case PortfolioCondition():
                leaf_kind = self.leaf.type.removeprefix("portfolio_")
                return (
                    Metric(
                        "portfolio",
                        "",
                        self.user_id,
                        (self.leaf.portfolio_id, leaf_kind, self.leaf.asset or ""),
                    ),
                )
            case _:
                return ()

    def holds(self, values: Values) -> bool | None:
        """Whether the leaf is true at these values; None while one is unknown, and for moments without a value."""
        known = [value for value in (values(metric) for metric in self.metrics) if value is not None]
        if not known:
            return None
        return self._holds(known)

    def _holds(self, known: list[Number]) -> bool | None:  # noqa: PLR0911 - one line per kind of leaf
        value = known[0]
        leaf = self.leaf
        match leaf:
            case PriceThreshold(type="price_above" | "price_cross_up"):
                return value >= leaf.value
            case PriceThreshold(type="price_below" | "price_cross_down"):
                return value <= leaf.value
            case PriceRange():
                inside = leaf.low <= value <= leaf.high
                return inside if leaf.type == "price_enter_range" else not inside
            case PctChange(ref="since_created"):
                up, down = self._since_created()
                above, below = up is not None and value >= up, down is not None and value <= down
                return None if up is None and down is None else above or below
            case PctChange():
                return any(change >= float(leaf.pct) for change in known)
            case IndicatorCondition(op="above" | "cross_up"):
                return value >= self._level()
            case IndicatorCondition(op="below" | "cross_down"):
                return value <= self._level()
            case VolumeSpike():
                return value >= float(leaf.factor)
            case Spread():
                return value >= float(leaf.pct)
            case StaleFeed():
                return value >= leaf.seconds
            case PortfolioCondition():
                return value >= leaf.value if leaf.op == "above" else value <= leaf.value
            case _:
                return None

    def wires(self, *, track: bool) -> list[WireSpec]:
        """The thresholds to watch; with `track` also those at which the condition ends."""
        found: list[WireSpec] = []
        for metric in self.metrics:
            for edge, threshold in self._enters():
                found.append(WireSpec(metric, edge, threshold, Role.ENTER))
            if track:
                for edge, threshold in self._exits():
                    found.append(WireSpec(metric, edge, threshold, Role.EXIT))
            hysteresis = self.definition.hysteresis
            if hysteresis is not None:
                for edge, threshold in self._rearms(hysteresis):
                    found.append(WireSpec(metric, edge, threshold, Role.REARM))
        return found

    def is_rearmed(self, values: Values) -> bool:
        """True when the value has gone back behind every threshold by the hysteresis."""
        hysteresis = self.definition.hysteresis
        if hysteresis is None:
            return True
        for metric in self.metrics:
            value = values(metric)
            if value is None:
                return False
            for edge, threshold in self._enters():
                margin = _margin(hysteresis, threshold)
                distance = threshold - value if edge.is_up else value - threshold  # type: ignore[operator]  # one kind of number per metric
                if (abs(distance) if self._is_cross() else distance) < margin:
                    return False
        return True

    def _is_cross(self) -> bool:
        leaf = self.leaf
        return (isinstance(leaf, PriceThreshold) and leaf.type == "price_cross") or (
            isinstance(leaf, IndicatorCondition) and leaf.op == "cross"
        )

    def _level(self) -> float:
        leaf = self.leaf
        assert isinstance(leaf, IndicatorCondition)
        return 0.0 if leaf.value is None else float(leaf.value)

    def _since_created(self) -> tuple[Decimal | None, Decimal | None]:
        leaf = self.leaf
        assert isinstance(leaf, PctChange)
        if self.anchor is None:
            return None, None
        up = self.anchor * (1 + leaf.pct / 100) if leaf.direction in {"up", "any"} else None
        down = self.anchor * (1 - leaf.pct / 100) if leaf.direction in {"down", "any"} else None
        return up, down if down is not None and down > 0 else None

    def _enters(self) -> list[tuple[Edge, Number]]:  # noqa: C901, PLR0911, PLR0912 - one branch per kind of leaf
        leaf = self.leaf
        up, down = Edge.REACH_UP, Edge.REACH_DOWN
        match leaf:
            case PriceThreshold(type="price_above" | "price_cross_up"):
                return [(up, leaf.value)]
            case PriceThreshold(type="price_below" | "price_cross_down"):
                return [(down, leaf.value)]
            case PriceThreshold():
                return [(up, leaf.value), (down, leaf.value)]
            case PriceRange(type="price_enter_range"):
                return [(up, leaf.low), (down, leaf.high)]
            case PriceRange():
                return [(Edge.LEAVE_DOWN, leaf.low), (Edge.LEAVE_UP, leaf.high)]
            case PctChange(ref="since_created"):
                above, below = self._since_created()
                found: list[tuple[Edge, Number]] = []
                if above is not None:
                    found.append((up, above))
                if below is not None:
                    found.append((down, below))
                return found
            case PctChange():
                return [(up, float(leaf.pct))]
            case IndicatorCondition(op="above" | "cross_up"):
                return [(up, self._level())]
            case IndicatorCondition(op="below" | "cross_down"):
                return [(down, self._level())]
            case IndicatorCondition():
                return [(up, self._level()), (down, self._level())]
            case VolumeSpike():
                return [(up, float(leaf.factor))]
            case Spread():
                return [(up, float(leaf.pct))]
            case StaleFeed():
                return [(up, float(leaf.seconds))]
            case PortfolioCondition():
                return [(up if leaf.op == "above" else down, leaf.value)]
            case _:
                return []

    def _exits(self) -> list[tuple[Edge, Number]]:
        opposite = {
            Edge.REACH_UP: Edge.LEAVE_DOWN,
            Edge.REACH_DOWN: Edge.LEAVE_UP,
            Edge.LEAVE_UP: Edge.REACH_DOWN,
            Edge.LEAVE_DOWN: Edge.REACH_UP,
        }
        return [(opposite[edge], threshold) for edge, threshold in self._enters()]

    def _rearms(self, hysteresis: Hysteresis) -> list[tuple[Edge, Number]]:
        found: list[tuple[Edge, Number]] = []
        for edge, threshold in self._enters():
            margin = _margin(hysteresis, threshold)
            below: Number = threshold - margin  # type: ignore[operator]  # one kind of number per metric
            above: Number = threshold + margin  # type: ignore[operator]  # as above
            if edge.is_up or self._is_cross():
                found.append((Edge.REACH_DOWN, below))
            if not edge.is_up or self._is_cross():
                found.append((Edge.REACH_UP, above))
        return list(dict.fromkeys(found))


def _margin(hysteresis: Hysteresis, threshold: Number) -> Number:
    """The hysteresis in the metric's own kind of number."""
    if isinstance(threshold, Decimal):
        return hysteresis.abs if hysteresis.abs is not None else abs(threshold) * (hysteresis.pct or 0) / 100
    return (
        float(hysteresis.abs)
        if hysteresis.abs is not None
        else abs(threshold) * float(hysteresis.pct or 0) / 100
    )
