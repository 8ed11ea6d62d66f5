"""Trailing rules of one market: thresholds that follow the extreme since each rule was armed, shared wherever they agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Generic, TypeVar

from sortedcontainers import SortedKeyList

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class _Group(Generic[ItemT]):
    """Rules with the same extreme, by percent."""

    anchor: Decimal
    items: SortedKeyList = field(default_factory=lambda: SortedKeyList(key=lambda entry: entry[0]))

    def trigger(self, sign: int) -> Decimal:
        """The price at which the rule with the smallest percent fires."""
        smallest: Decimal = self.items[0][0]
        return self.anchor * (1 - sign * smallest / 100)


class TrailingBook(Generic[ItemT]):
    """Rules that fire when the price falls `pct` percent below its highest since they were added (or rises above its lowest).

    The extreme since an earlier time is never nearer than that since a later one, so rules form groups with ever nearer
    extremes; a new extreme merges the groups it passes. A price that makes no new extreme and stays above every group's next
    trigger costs two comparisons.
    """

    __slots__ = ("_groups", "_next", "_sign", "followed", "value")

    def __init__(self, *, from_high: bool) -> None:
        self._sign = 1 if from_high else -1
        self._groups: list[_Group[ItemT]] = []
        self.followed: dict[ItemT, tuple[_Group[ItemT], Decimal]] = {}
        """Where each item is."""
        self._next: Decimal | None = None
        self.value: Decimal | None = None

    def __len__(self) -> int:
        return len(self.followed)

    def add(self, item: ItemT, pct: Decimal, anchor: Decimal) -> None:
        """Follow from `anchor` on: the price when the rule was armed, or its extreme as remembered."""
        if self.value is not None and self._further(self.value, anchor):
            anchor = self.value
        group = self._group_of(anchor)
        group.items.add((pct, item))
        self.followed[item] = (group, pct)
        self._refresh()

    def remove(self, item: ItemT) -> None:
        """Follow no longer; unknown items are ignored."""
        found = self.followed.pop(item, None)
        if found is None:
            return
        group, pct = found
        for at in range(group.items.bisect_key_left(pct), len(group.items)):
            if group.items[at][1] is item:
                del group.items[at]
                break
        if not group.items:
            self._groups.remove(group)
        self._refresh()

    def anchor(self, item: ItemT) -> Decimal | None:
        """The extreme that an item follows now."""
        found = self.followed.get(item)
        return found[0].anchor if found else None

    def items(self) -> list[ItemT]:
        """All that is followed."""
        return list(self.followed)

    def move(self, price: Decimal) -> list[tuple[ItemT, Decimal]]:
        """Take a price in; -> (item, its trigger price) of what fires, which is removed. Add it again to follow anew."""
        self.value = price
        groups = self._groups
        if not groups:
            return []
        if self._further(price, groups[-1].anchor):
            self._extend(price)
            return []
        if self._next is None or self._further(price, self._next):
            return []
        return self._fire(price)

    def stays(self, low: Decimal, high: Decimal) -> bool:
        """True when nothing can fire on any way through [low, high]. Says no where that is not plain."""
        if not self._groups:
            return True
        extreme, back = (high, low) if self._sign > 0 else (low, high)
        if self._next is not None and not self._further(back, self._next):
            return False
        if not self._further(extreme, self._groups[-1].anchor):
            return True
        smallest = min(group.items[0][0] for group in self._groups)
        return self._further(back, extreme * (1 - self._sign * smallest / 100))

    def pass_through(self, low: Decimal, high: Decimal, close: Decimal) -> None:
        """Take in a way of which `stays` is true, that ends at `close`."""
        extreme = high if self._sign > 0 else low
        if self._groups and self._further(extreme, self._groups[-1].anchor):
            self._extend(extreme)
        self.value = close

    def _further(self, one: Decimal, other: Decimal) -> bool:
        """True when `one` is more extreme: higher when following highs."""
        return one > other if self._sign > 0 else one < other

    def _group_of(self, anchor: Decimal) -> _Group[ItemT]:
        """The group with this extreme, made in its place when it is new."""
        at = 0
        while at < len(self._groups) and self._further(self._groups[at].anchor, anchor):
            at += 1
        if at == len(self._groups) or self._groups[at].anchor != anchor:
            self._groups.insert(at, _Group[ItemT](anchor))
        return self._groups[at]

    def _extend(self, price: Decimal) -> None:
        """A new extreme: the groups that it passes become one; the smaller is poured into the larger."""
        merged = self._groups.pop()
        while self._groups and not self._further(self._groups[-1].anchor, price):
            passed = self._groups.pop()
            if len(passed.items) > len(merged.items):
                merged, passed = passed, merged
            merged.items.update(passed.items)
            for pct, item in passed.items:
                self.followed[item] = (merged, pct)
        merged.anchor = price
        self._groups.append(merged)
        self._refresh()

    def _fire(self, price: Decimal) -> list[tuple[ItemT, Decimal]]:
        fired: list[tuple[ItemT, Decimal]] = []
        for group in list(self._groups):
            while group.items:
                trigger = group.trigger(self._sign)
                if self._further(price, trigger):
                    break
                _, item = group.items.pop(0)
                del self.followed[item]
                fired.append((item, trigger))
            if not group.items:
                self._groups.remove(group)
        self._refresh()
        return fired

    def _refresh(self) -> None:
        triggers = [group.trigger(self._sign) for group in self._groups]
        if not triggers:
            self._next = None
        else:
            self._next = max(triggers) if self._sign > 0 else min(triggers)
