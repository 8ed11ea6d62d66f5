"""One market as the engine follows it: where it stands, what watches it, and the holes in what was received."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from cryptopulse.alerts.domain.thresholds import Number, ThresholdIndex, path
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
    received_us: int = 0
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
        way = _extremes(self.index.value, low, high, close) if self.changes else None
        if way is not None and not all(
            index.floor < 0 and reach < index.ceiling
            for window, indexes in self.changes.items()
            for index, reach in _by_direction(indexes, self.windows[window].reach(*way))
        ):
            return False
        books = (self.highs, self.lows)
        if not all(book.stays(low, high) for book in books) or not self.index.stays(low, high, close):
            return False
        for book in books:
            book.pass_through(low, high, close)
        if way is not None:
            for window, indexes in self.changes.items():
                stands = self.windows[window].pass_through(at_us, *way, float(close))
                for index, value in _by_direction(indexes, stands):
                    index.value = value
        return True

    def position(self) -> Position | None:
        """Where it stands, None before the first price."""
        if self.price is None:
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


def _extremes(before: Number | None, low: Decimal, high: Decimal, close: Decimal) -> tuple[float, float]:
    """The lowest and highest price of the `path` that a bar stands for."""
    way = path(before, low, high, close)
    return float(min(way)), float(max(way))


def _by_direction(
    indexes: list[tuple[str, ThresholdIndex[Wire]]], values: tuple[float, float]
) -> Iterator[tuple[ThresholdIndex[Wire], float]]:
    """Each index of a window with its one of (percent above the low, percent below the high)."""
    above, below = values
    return ((index, above if direction == "up" else below) for direction, index in indexes)
