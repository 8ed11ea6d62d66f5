"""Offsets of what the owner of a shard publishes: clients of the streams resume by them, on any gateway."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

REMEMBERED: Final = 20_000


class Numbering:
    """Counts the items of each series from 1, by 1. An item that is published again keeps its number.

    The newest `REMEMBERED` items are known again; what is tried again after a failure is among them.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self._given: OrderedDict[Hashable, int] = OrderedDict()

    def number(self, series: Hashable, item: Hashable) -> int:
        """The offset of an item of a series."""
        known = self._given.get((series, item))
        if known is not None:
            return known
        offset = self._last[series] = self._last.get(series, 0) + 1
        self._given[series, item] = offset
        if len(self._given) > REMEMBERED:
            self._given.popitem(last=False)
        return offset
