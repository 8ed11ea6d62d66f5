"""One market as the engine follows it: where it stands, what watches it, and the holes in what was received."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from cryptopulse.alerts.domain.thresholds import ThresholdIndex, path
from cryptopulse.alerts.domain.trailing import TrailingBook
from cryptopulse.alerts.domain.windows import RollingExtremes
from cryptopulse.alerts.domain.wiring import Metric

if TYPE_CHECKING:
    from cryptopulse.alerts.domain.attachment import Wire

MAX_HOLES: Final = 16
"""Unexplained holes kept per market; beyond it the oldest two are joined into one."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A time in which prices were not seen: from `before` at `from_us` to `after` at `to_us`."""

    symbol: str
    source: str
    from_us: int
    to_us: int
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a market was evaluated. `sequence` is the trade's id or the price's seq (in `epoch`)."""

    symbol: str
    source: str
    price: Decimal
    at_us: int
    received_us: int
    sequence: int = 0
    epoch: int = 0
    holes: tuple[Hole, ...] = ()


@dataclass(slots=True, eq=False)
class Market:
    """(symbol, source): its threshold index and whatever else hangs on its price."""

    symbol: str
    source: str
    index: ThresholdIndex[Wire] = field(default_factory=ThresholdIndex)
    windows: dict[int, RollingExtremes] = field(default_factory=dict)
    changes: dict[int, list[tuple[str, ThresholdIndex[Wire]]]] = field(default_factory=dict)
    """Window in ms -> (`up` or `down`, its index)."""
    highs: TrailingBook[Wire] = field(default_factory=lambda: TrailingBook(from_high=True))
    lows: TrailingBook[Wire] = field(default_factory=lambda: TrailingBook(from_high=False))
    spreads: list[tuple[Metric, ThresholdIndex[Wire], Market]] = field(default_factory=list)
    waiting: list[Wire] = field(default_factory=list)
    """Rules that take their reference from the first price."""
    sequence: int = 0
    epoch: int = 0
    at_us: int = 0
    """When the last price was heard, 0 before the first."""
    received_us: int = 0
    said_ms: int = 0
    """Before the first: when the rule was made whose price then is the newest known."""
    holes: list[Hole] = field(default_factory=list)
    users: int = 0
    changed: bool = False

    @property
    def price(self) -> Decimal | None:
        """The last price, None before the first."""
        value = self.index.value
        return value if isinstance(value, Decimal) else None

    @property
    def has_extras(self) -> bool:
        """True when something besides plain thresholds watches the price."""
        return bool(self.changes or self.spreads or self.waiting or self.highs.followed or self.lows.followed)

    def stays(self, at_us: int, low: Decimal, high: Decimal, close: Decimal) -> bool:
        """True when nothing can fire on the way through [low, high] to `close`: everything stands there then. Else nothing happens."""
        if self.spreads or self.waiting:
            return False
        bottom = top = 0.0
        if self.changes:
            way = path(self.index.value, low, high, close)
            bottom, top = float(min(way)), float(max(way))
            for window, indexes in self.changes.items():
                above, below = self.windows[window].reach(bottom, top)
                for direction, index in indexes:
                    if index.floor >= 0 or (above if direction == "up" else below) >= index.ceiling:
                        return False
        highs, lows = self.highs, self.lows
        if not (highs.stays(low, high) and lows.stays(low, high) and self.index.stays(low, high, close)):
            return False
        highs.pass_through(low, high, close)
        lows.pass_through(low, high, close)
        for window, indexes in self.changes.items():
            above, below = self.windows[window].pass_through(at_us, bottom, top, float(close))
            for direction, index in indexes:
                index.value = above if direction == "up" else below
        return True

    def position(self) -> Position | None:
        """Where it stands, None before the first price was heard."""
        if self.price is None or not self.at_us:
            return None
        return Position(
            self.symbol,
            self.source,
            self.price,
            self.at_us,
            self.received_us,
            self.sequence,
            self.epoch,
            tuple(self.holes),
        )

    def restore(self, position: Position) -> None:
        """Stand where a predecessor stood; crosses nothing."""
        self.index.reset(position.price)
        self.highs.value = self.lows.value = position.price
        self.sequence, self.epoch = position.sequence, position.epoch
        self.at_us, self.received_us = position.at_us, position.received_us
        self.holes = list(position.holes)

    def note_hole(self, to_us: int, after: Decimal) -> Hole | None:
        """Prices are missing between the last one and this one."""
        before = self.price
        if before is None:
            return None
        hole = Hole(self.symbol, self.source, self.at_us, to_us, before, after)
        self.holes.append(hole)
        if len(self.holes) > MAX_HOLES:
            first, second = self.holes[0], self.holes[1]
            joined = Hole(self.symbol, self.source, first.from_us, second.to_us, first.before, second.after)
            self.holes[:2] = [joined]
        return hole
