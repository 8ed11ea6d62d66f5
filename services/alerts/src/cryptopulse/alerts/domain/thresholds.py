"""Which thresholds a moving value crosses: sorted levels with a guard band, so that most ticks cost two comparisons (step 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import IntEnum
from typing import Final, Generic, TypeVar

from sortedcontainers import SortedList

ItemT = TypeVar("ItemT")
Number = Decimal | float


class Edge(IntEnum):
    """A boundary and the direction in which crossing it counts.

    A threshold T has two boundaries: between `< T` and `>= T` (REACH_UP, LEAVE_DOWN), and between `<= T` and `> T`
    (LEAVE_UP, REACH_DOWN). So a state "at or above T" begins with REACH_UP and ends with LEAVE_DOWN, exactly.
    """

    REACH_UP = 0
    """From `< T` to `>= T`: T in (previous, current]."""
    LEAVE_UP = 1
    """From `<= T` to `> T`: T in [previous, current)."""
    LEAVE_DOWN = 2
    """From `>= T` to `< T`: T in (current, previous]."""
    REACH_DOWN = 3
    """From `> T` to `<= T`: T in [current, previous)."""

    @property
    def is_up(self) -> bool:
        """True when the value rises through it."""
        return self < 2

    def is_between(self, threshold: Number, before: Number, after: Number) -> bool:
        """Whether a threshold is crossed through this edge on the way from `before` to `after`."""
        match self:
            case Edge.REACH_UP:
                return before < threshold <= after
            case Edge.LEAVE_UP:
                return before <= threshold < after
            case Edge.LEAVE_DOWN:
                return after < threshold <= before
            case Edge.REACH_DOWN:
                return after <= threshold < before


_NOTHING: Final[tuple[()]] = ()


class _Levels(Generic[ItemT]):
    """The distinct thresholds of one edge, sorted, each with its items in order of arrival."""

    __slots__ = ("at", "sorted")

    def __init__(self) -> None:
        self.sorted: SortedList = SortedList()
        self.at: dict[Number, dict[ItemT, None]] = {}

    def add(self, level: Number, item: ItemT) -> None:
        items = self.at.get(level)
        if items is None:
            self.at[level] = {item: None}
            self.sorted.add(level)
        else:
            items[item] = None

    def remove(self, level: Number, item: ItemT) -> None:
        items = self.at.get(level)
        if items is None:
            return
        items.pop(item, None)
        if not items:
            del self.at[level]
            self.sorted.remove(level)

    def load(self, pairs: Iterable[tuple[Number, ItemT]]) -> None:
        for level, item in pairs:
            self.at.setdefault(level, {})[item] = None
        self.sorted = SortedList(self.at)


class ThresholdIndex(Generic[ItemT]):
    """Thresholds on one value. `move` says which are crossed on the way from the last value to the next, in that order.

    The guard band is the open interval between the nearest thresholds of *all* edges around the value: while the value
    stays inside, nothing can be crossed. (A band of only those edges that are ahead loses crossings: an edge that was
    passed the other way is live again.) A value that stands exactly on a threshold has no band.
    """

    __slots__ = ("_ceiling", "_floor", "_levels", "value")

    def __init__(self) -> None:
        self.value: Number | None = None
        """The last value, None before the first."""
        self._levels: tuple[_Levels[ItemT], ...] = tuple(_Levels() for _ in Edge)
        self._floor: Number = float("inf")
        self._ceiling: Number = float("-inf")

    def __len__(self) -> int:
        return sum(len(items) for levels in self._levels for items in levels.at.values())

    @property
    def is_empty(self) -> bool:
        """True when nothing is watched."""
        return not any(levels.at for levels in self._levels)

    def add(self, edge: Edge, threshold: Number, item: ItemT) -> None:
        """Watch `threshold`; the same item may be added once per (edge, threshold)."""
        self._levels[edge].add(threshold, item)
        if self._floor < threshold < self._ceiling:
            self._tighten()

    def load(self, edge: Edge, pairs: Iterable[tuple[Number, ItemT]]) -> None:
        """Watch many thresholds at once: one sort instead of many insertions."""
        self._levels[edge].load(pairs)
        self._tighten()

    def remove(self, edge: Edge, threshold: Number, item: ItemT) -> None:
        """Watch it no longer; unknown items are ignored. The band stays as it is, which is safe, only tighter."""
        self._levels[edge].remove(threshold, item)

    def reset(self, value: Number | None) -> None:
        """Set the value without crossing anything."""
        self.value = value
        self._tighten()

    def move(self, value: Number) -> list[tuple[ItemT, Number, Edge]] | tuple[()]:
        """The items crossed from the last value (exclusive) to this one, as (item, threshold, edge), in the order of the way.

        Nothing for the first value, and nothing for an equal one.
        """
        if self._floor < value < self._ceiling:
            self.value = value
            return _NOTHING
        before = self.value
        self.value = value
        if before is None or before == value:
            self._tighten()
            return _NOTHING
        hits = list(self._crossed(before, value))
        self._tighten()
        return hits

    def stays(self, low: Number, high: Number, close: Number) -> bool:
        """True when a way through [low, high] to `close` crosses nothing: the value is at `close` then. Else nothing happens."""
        if self._floor < low and high < self._ceiling:
            self.value = close
            return True
        return False

    def between(self, before: Number, after: Number) -> list[tuple[ItemT, Number, Edge]]:
        """The items crossed on the way from `before` to `after`, in the order of the way; the value stays where it is."""
        return [] if before == after else list(self._crossed(before, after))

    def _crossed(self, before: Number, after: Number) -> Iterator[tuple[ItemT, Number, Edge]]:
        if after > before:
            first, second, low, high = Edge.REACH_UP, Edge.LEAVE_UP, before, after
        else:
            first, second, low, high = Edge.REACH_DOWN, Edge.LEAVE_DOWN, after, before
        found: list[tuple[Number, Edge]] = []
        for edge in (first, second):
            levels = self._levels[edge]
            if not levels.at:
                continue
            # REACH_UP and LEAVE_DOWN own the upper end of the interval, the other two its lower end.
            upper = edge in {Edge.REACH_UP, Edge.LEAVE_DOWN}
            found += [
                (level, edge) for level in levels.sorted.irange(low, high, inclusive=(not upper, upper))
            ]
        if len(found) > 1:
            # On the way up a threshold is reached before it is left; on the way down the same.
            sign = 1 if after > before else -1
            found.sort(key=lambda hit: (sign * hit[0], hit[1] is second))
        for level, edge in found:
            for item in tuple(self._levels[edge].at[level]):
                yield item, level, edge

    def _tighten(self) -> None:
        """Set the band around the value: the nearest threshold of any edge on each side."""
        value = self.value
        if value is None:
            self._floor, self._ceiling = float("inf"), float("-inf")
            return
        floor: Number = float("-inf")
        ceiling: Number = float("inf")
        for levels in self._levels:
            sorted_levels = levels.sorted
            if not sorted_levels:
                continue
            at = sorted_levels.bisect_right(value)
            if at and sorted_levels[at - 1] > floor:
                floor = sorted_levels[at - 1]
            if at < len(sorted_levels) and sorted_levels[at] < ceiling:
                ceiling = sorted_levels[at]
        self._floor, self._ceiling = floor, (value if floor == value else ceiling)


def path(before: Number | None, low: Number, high: Number, close: Number) -> tuple[Number, ...]:
    """The way a value took through [low, high] to `close`: only crossings that are certain.

    With a start below the close it is start, low, high, close, else start, high, low, close. A threshold that
    the value may or may not have crossed in between is not on this way.
    """
    low, high = min(low, close), max(high, close)
    if low == high:
        return (close,)
    if before is None:
        return (close,)
    if close >= before:
        return (min(low, before), max(high, before), close)
    return (max(high, before), min(low, before), close)
