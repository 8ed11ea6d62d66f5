"""Legs parsed once: a write finds those of its portfolio's last version in memory and need not read them again.

The lock on the portfolio's version makes this exact over all replicas: legs change only with the version, a version is
committed once, and what is kept here is what a commit left. Another version than the expected one is no hit.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptopulse.portfolio.domain.postings import Posting, key_of

FEW: Final = 50
"""Up to so many new legs are put in one by one."""


@dataclass(slots=True)
class LegChanges:
    """What a unit of work does to the legs of one portfolio, on its way to `version`."""

    portfolio_id: int
    version: int
    added: list[Posting] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    read: dict[tuple[str, ...], list[Posting]] = field(default_factory=dict)
    """All legs of some assets, as this unit left them when it read them."""

    def add(self, postings: Sequence[Posting]) -> None:
        """Legs come."""
        self.added += postings
        self.read.clear()

    def drop(self, seq: int) -> None:
        """The legs of a transaction go."""
        self.dropped.add(seq)
        self.added = [posting for posting in self.added if posting.seq != seq]
        self.read.clear()

    def applied(self, assets: Sequence[str], before: Sequence[Posting]) -> list[Posting]:
        """Legs of these assets before, as they are after the changes; in the order of the books."""
        names = set(assets)
        dropped = self.dropped
        legs = [leg for leg in before if leg.seq not in dropped] if dropped else list(before)
        fresh = [posting for posting in self.added if posting.asset in names]
        if len(fresh) > FEW:
            return sorted([*legs, *fresh], key=key_of)
        for posting in fresh:
            insort(legs, posting, key=key_of)
        return legs


@dataclass(slots=True)
class _Entry:
    version: int
    legs: dict[tuple[str, ...], list[Posting]]

    def size(self) -> int:
        return sum(map(len, self.legs.values()))


class LegCache:
    """Least recently written portfolios go first; `limit` counts legs. Lists are shared and never changed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def before(self, changes: LegChanges, assets: Sequence[str]) -> list[Posting] | None:
        """All legs of these assets in the version before this unit's, None when they are not known."""
        entry = self._entries.get(changes.portfolio_id)
        if entry is None or entry.version != changes.version - 1:
            return None
        return entry.legs.get(tuple(assets))

    def committed(self, changes: LegChanges) -> None:
        """The unit of work was committed: what is known of the version before becomes that of its own."""
        entry = self._entries.get(changes.portfolio_id)
        if entry is not None and entry.version >= changes.version:
            return
        legs: dict[tuple[str, ...], list[Posting]] = {}
        if entry is not None and entry.version == changes.version - 1:
            others = (item for item in entry.legs.items() if item[0] not in changes.read)
            legs = {assets: changes.applied(assets, found) for assets, found in others}
        legs |= changes.read
        self._put(changes.portfolio_id, _Entry(changes.version, _disjoint(legs, changes.read)))

    def _put(self, portfolio_id: int, entry: _Entry) -> None:
        old = self._entries.pop(portfolio_id, None)
        if old is not None:
            self._size -= old.size()
        size = entry.size()
        if not size or size > self._limit:
            return
        self._entries[portfolio_id] = entry
        self._size += size
        while self._size > self._limit:
            _, gone = self._entries.popitem(last=False)
            self._size -= gone.size()


def _disjoint(
    legs: dict[tuple[str, ...], list[Posting]], newest: Iterable[tuple[str, ...]]
) -> dict[tuple[str, ...], list[Posting]]:
    """Without groups that share an asset with another one of the newest: renames have joined or parted them."""
    new = set(newest)
    taken = {asset for group in new for asset in group}
    return {group: found for group, found in legs.items() if group in new or not taken & set(group)}
