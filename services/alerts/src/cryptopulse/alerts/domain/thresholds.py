"""Which thresholds a moving value crosses: sorted levels with a guard band, so that most ticks cost two comparisons (step 9)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from decimal import Decimal
from enum import IntEnum
from typing import Final, Generic, TypeVar

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
BLOCK: Final = 512
"""Most levels in a block."""


class _Levels(Generic[ItemT]):
    """The distinct thresholds of one edge, sorted, each with its items in order of arrival.

    Sorted blocks of bounded length, so that insertion and removal move little memory, with the items in blocks beside them:
    a crossing finds levels and items by two binary searches, and no level is ever hashed.
    """

    __slots__ = ("_blocks", "_ends", "_items")

    def __init__(self) -> None:
        self._blocks: list[list[Number]] = []
        self._items: list[list[dict[ItemT, None]]] = []
        self._ends: list[Number] = []
        """The highest level of each block."""

    def __bool__(self) -> bool:
        return bool(self._ends)

    def __len__(self) -> int:
        return sum(len(items) for block in self._items for items in block)

    def add(self, level: Number, item: ItemT) -> None:
        if not self._ends:
            self._blocks, self._items, self._ends = [[level]], [[{item: None}]], [level]
            return
        number = min(bisect_left(self._ends, level), len(self._ends) - 1)
        block, items = self._blocks[number], self._items[number]
        at = bisect_left(block, level)
        if at < len(block) and block[at] == level:
            items[at][item] = None
            return
        block.insert(at, level)
        items.insert(at, {item: None})
        self._ends[number] = block[-1]
        if len(block) > BLOCK:
            half = len(block) // 2
            self._blocks.insert(number + 1, block[half:])
            self._items.insert(number + 1, items[half:])
            self._ends.insert(number, block[half - 1])
            del block[half:], items[half:]

    def remove(self, level: Number, item: ItemT) -> None:
        number = bisect_left(self._ends, level)
        if number == len(self._ends):
            return
        block, items = self._blocks[number], self._items[number]
        at = bisect_left(block, level)
        if block[at] != level:
            return
        items[at].pop(item, None)
        if items[at]:
            return
        del block[at], items[at]
        if not block:
            del self._blocks[number], self._items[number], self._ends[number]
        elif at == len(block):
            self._ends[number] = block[-1]

    def load(self, pairs: Iterable[tuple[Number, ItemT]]) -> None:
        merged: dict[Number, dict[ItemT, None]] = {}
        for block, beside in zip(self._blocks, self._items, strict=True):
            merged.update(zip(block, beside, strict=True))
        for level, item in pairs:
            merged.setdefault(level, {})[item] = None
        levels = sorted(merged)
        self._blocks = [levels[at : at + BLOCK // 2] for at in range(0, len(levels), BLOCK // 2)]
        self._items = [[merged[level] for level in block] for block in self._blocks]
        self._ends = [block[-1] for block in self._blocks]

    def neighbours(self, value: Number) -> tuple[Number | None, Number | None]:
        """The highest level at or below `value` and the lowest above it."""
        number = bisect_right(self._ends, value)
        if number == len(self._ends):
            return (self._ends[-1] if self._ends else None), None
        block = self._blocks[number]
        at = bisect_right(block, value)
        if at:
            return block[at - 1], block[at]
        return (self._ends[number - 1] if number else None), block[0]

    def between(self, low: Number, high: Number, *, upper: bool) -> list[tuple[Number, dict[ItemT, None]]]:
        """The levels of (low, high] when `upper`, else of [low, high), rising, each with its items."""
        search = bisect_right if upper else bisect_left
        found: list[tuple[Number, dict[ItemT, None]]] = []
        for number in range(search(self._ends, low), len(self._ends)):
            block = self._blocks[number]
            first, last = search(block, low), search(block, high)
            found += zip(block[first:last], self._items[number][first:last], strict=True)
            if last < len(block):
                break
        return found


class ThresholdIndex(Generic[ItemT]):
    """Thresholds on one value. `move` says which are crossed on the way from the last value to the next, in that order.

    The guard band is the open interval between the nearest thresholds of *all* edges around the value: while the value
    stays inside, nothing can be crossed. (A band of only those edges that are ahead loses crossings: an edge that was
    passed the other way is live again.) A value that stands exactly on a threshold has no band.
    """

    __slots__ = ("_levels", "ceiling", "floor", "value")

    def __init__(self) -> None:
        self.value: Number | None = None
        """The last value, None before the first."""
        self._levels: tuple[_Levels[ItemT], ...] = tuple(_Levels() for _ in Edge)
        self.floor: Number = float("inf")
        self.ceiling: Number = float("-inf")
        """The guard band: while floor < value < ceiling nothing is crossed, and `value` may be set without `move`."""

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    @property
    def is_empty(self) -> bool:
        """True when nothing is watched."""
        return not any(self._levels)

    def add(self, edge: Edge, threshold: Number, item: ItemT) -> None:
        """Watch `threshold`; the same item may be added once per (edge, threshold)."""
        self._levels[edge].add(threshold, item)
        if self.floor < threshold < self.ceiling:
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
        if self.floor < value < self.ceiling:
            self.value = value
            return _NOTHING
        before = self.value
        self.value = value
        if before is None or before == value:
            self._tighten()
            return _NOTHING
        hits = self._crossed(before, value)
        self._tighten()
        return hits

    def stays(self, low: Number, high: Number, close: Number) -> bool:
        """True when a way through [low, high] to `close` crosses nothing: the value is at `close` then. Else nothing happens."""
        if self.floor < low and high < self.ceiling:
            self.value = close
            return True
        return False

    def between(self, before: Number, after: Number) -> list[tuple[ItemT, Number, Edge]]:
        """The items crossed on the way from `before` to `after`, in the order of the way; the value stays where it is."""
        return [] if before == after else self._crossed(before, after)

    def _crossed(self, before: Number, after: Number) -> list[tuple[ItemT, Number, Edge]]:
        rises = after > before
        if rises:
            first, second, low, high = Edge.REACH_UP, Edge.LEAVE_UP, before, after
        else:
            first, second, low, high = Edge.REACH_DOWN, Edge.LEAVE_DOWN, after, before
        # REACH_UP and LEAVE_DOWN own the upper end of the interval, the other two its lower end.
        found = [
            (level, first, items) for level, items in self._levels[first].between(low, high, upper=rises)
        ]
        if not rises:
            found.reverse()
        left = self._levels[second].between(low, high, upper=not rises)
        if left:
            found += [(level, second, items) for level, items in left]
            # On the way up a threshold is reached before it is left; on the way down the same.
            sign = 1 if rises else -1
            found.sort(key=lambda hit: (sign * hit[0], hit[1] is second))
        return [(item, level, edge) for level, edge, items in found for item in items]

    def _tighten(self) -> None:
        """Set the band around the value: the nearest threshold of any edge on each side."""
        value = self.value
        if value is None:
            self.floor, self.ceiling = float("inf"), float("-inf")
            return
        floor: Number = float("-inf")
        ceiling: Number = float("inf")
        for levels in self._levels:
            if not levels:
                continue
            below, above = levels.neighbours(value)
            if below is not None and below > floor:
                floor = below
            if above is not None and above < ceiling:
                ceiling = above
        self.floor, self.ceiling = floor, (value if floor == value else ceiling)


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
