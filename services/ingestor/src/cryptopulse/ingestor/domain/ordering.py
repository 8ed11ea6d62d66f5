"""The gap guard: every trade id of a symbol once, in order; what is missing is known exactly (step 3 of the route)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from cryptopulse.common.contracts.ticks import BACKFILL, LATE, SNAPSHOT, Trade

HELD_LIMIT: Final = 5_000
"""Trades kept behind a gap per symbol before the gap is declared."""
SPAN_IDS: Final = 1_000
"""Holes that lie so close together are fetched together: venues answer with pages of this size for the price of one trade."""
ABANDONED_LIMIT: Final = 64
"""Ranges per symbol that were declared missing and may still arrive."""
REBASE_AFTER: Final = 3
"""So many trades with lower ids and newer times prove that the venue numbers afresh."""
FAR_IDS: Final = 10_000_000
"""A jump ahead by more is a new numbering, not a gap."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Trade ids `first_id..last_id` of a symbol that did not arrive between the two times (venue's clock)."""

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int

    @property
    def size(self) -> int:
        """How many trades are missing."""
        return self.last_id - self.first_id + 1


@dataclass(slots=True)
class Counts:
    """What the guard did: for metrics and for the sum of what came and what went on."""

    duplicates: int = 0
    stragglers: int = 0
    late: int = 0
    repaired: int = 0
    rebased: int = 0
    gaps: int = 0
    lost: int = 0


class _Line:
    """The state of one symbol. `last` is None until the first trade; a gap is open while `held` is not empty."""

    __slots__ = ("abandoned", "asked", "held", "held_since_us", "last", "last_us", "suspects")

    def __init__(self, last: int | None = None, last_us: int = 0) -> None:
        self.last = last
        self.last_us = last_us
        self.held: dict[int, Trade] = {}
        self.held_since_us = 0
        self.asked: Gap | None = None
        self.suspects: list[Trade] = []
        self.abandoned: list[tuple[int, int]] = []


@dataclass(slots=True)
class TradeGuard:
    """Passes trades in id order, each once, per symbol of one venue.

    `offer` answers with what may go on now. A trade ahead of its turn is held for stragglers at most `hold_us`; then
    `due` names the gap, the caller fetches it and says `repaired` or `abandon`. Memory per symbol is bounded.
    """

    hold_us: int = 2_000_000
    counts: Counts = field(default_factory=Counts)
    _lines: dict[str, _Line] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def seed(self, symbol: str, last_id: int, last_us: int) -> None:
        """Begin behind a trade that an earlier process has published: what came since is a gap to repair."""
        self._lines.setdefault(symbol, _Line(last_id, last_us))

    def reset(self) -> None:
        """Forget every symbol; the counts stay."""
        self._lines.clear()
        self._open.clear()

    def offer(self, trade: Trade) -> bool:
        """True: `trade` is the next one, hand it on now. False: it was held or dropped; see `released`."""
        line = self._lines.get(trade.symbol)
        if line is None:
            line = self._lines[trade.symbol] = _Line()
        if trade.trade_id - 1 == line.last and not line.held and not line.suspects:
            line.last = trade.trade_id
            line.last_us = trade.event_us
            return True
        return False

    def settle(self, trade: Trade) -> list[Trade]:
        """For a trade that `offer` did not pass: what may go on now, in id order; often nothing."""
        line = self._lines[trade.symbol]
        if line.last is None:
            self._pass(line, trade)
            return [trade]
        if trade.trade_id <= line.last:
            return self._behind(line, trade)
        self.counts.duplicates += len(line.suspects)
        line.suspects.clear()
        if trade.trade_id == line.last + 1:
            if line.held:
                self.counts.stragglers += 1
            self._pass(line, trade)
            return [trade, *self._follow(line, trade.symbol)]
        if trade.trade_id - line.last > FAR_IDS:
            return self._rebase(line, [*line.held.values(), trade])
        return self._hold(line, trade)

    def expect(self, symbol: str, newest_id: int, now_us: int) -> Gap | None:
        """The venue says that `newest_id` was traded: the gap up to it, when nothing is held that will show it."""
        line = self._lines.get(symbol)
        if line is None or line.last is None or line.held or newest_id <= line.last:
            return None
        return Gap(symbol, line.last + 1, newest_id, line.last_us, now_us)

    def due(self, now_us: int) -> list[Gap]:
        """Gaps whose stragglers had their time and that nobody repairs yet; each is named once."""
        found = []
        for symbol in self._open:
            line = self._lines[symbol]
            if line.asked is None and (
                now_us - line.held_since_us >= self.hold_us or len(line.held) >= HELD_LIMIT
            ):
                line.asked = self._widened(line, self._gap(line, symbol), now_us)
                self.counts.gaps += 1
                found.append(line.asked)
        return found

    def repaired(self, gap: Gap, trades: Sequence[Trade]) -> tuple[list[Trade], list[Gap]]:
        """Close a gap with what the venue still had: trades to hand on, flagged, in id order, and what is lost for good.

        Ids that came by themselves meanwhile are not doubled. An empty `trades` gives the gap up.
        """
        line = self._lines.get(gap.symbol)
        if line is None or line.last is None:
            return [], []
        line.asked = None
        passed: list[Trade] = []
        lost: list[Gap] = []
        pool: dict[int, Trade] = {}
        for trade in trades:
            if trade.symbol != gap.symbol or not gap.first_id <= trade.trade_id <= gap.last_id:
                continue
            if trade.trade_id > line.last:
                pool[trade.trade_id] = _flagged(trade, BACKFILL)
            elif self._was_abandoned(line, trade.trade_id):
                passed.append(_flagged(trade, BACKFILL | LATE))
        passed.sort(key=_by_id)
        self.counts.repaired += len(passed) + sum(trade_id not in line.held for trade_id in pool)
        pool.update((trade_id, trade) for trade_id, trade in line.held.items() if trade_id <= gap.last_id)
        for trade_id in sorted(pool):
            lost += self._skip_to(line, gap.symbol, trade_id, pool[trade_id].event_us)
            self._pass(line, pool[trade_id])
            passed.append(pool[trade_id])
        lost += self._skip_to(line, gap.symbol, gap.last_id + 1, gap.to_us)
        return passed + self._follow(line, gap.symbol), lost

    def repaired_late(self, hole: Gap, trades: Sequence[Trade]) -> list[Trade]:
        """Trades of a hole that was passed over: each once, flagged as late, in id order; open gaps are not touched."""
        line = self._lines.get(hole.symbol)
        if line is None:
            return []
        passed = [
            _flagged(trade, BACKFILL | LATE)
            for trade in sorted(trades, key=_by_id)
            if hole.first_id <= trade.trade_id <= hole.last_id and self._was_abandoned(line, trade.trade_id)
        ]
        self.counts.repaired += len(passed)
        return passed

    def last_ids(self) -> dict[str, tuple[int, int]]:
        """Symbol -> (newest id handed on, its event time): what a restart needs."""
        return {s: (line.last, line.last_us) for s, line in self._lines.items() if line.last is not None}

    def last_of(self, symbol: str) -> int | None:
        """The newest id handed on, None before the first."""
        line = self._lines.get(symbol)
        return None if line is None else line.last

    @property
    def held(self) -> int:
        """Trades that wait behind gaps now."""
        return sum(len(self._lines[symbol].held) for symbol in self._open)

    def _pass(self, line: _Line, trade: Trade) -> None:
        line.last = trade.trade_id
        line.last_us = max(line.last_us, trade.event_us)

    def _follow(self, line: _Line, symbol: str) -> list[Trade]:
        """Held trades that are next now; what remains held stands before another gap."""
        assert line.last is not None
        released: list[Trade] = []
        for stale in [trade_id for trade_id in line.held if trade_id <= line.last]:
            del line.held[stale]
        while (trade := line.held.pop(line.last + 1, None)) is not None:
            self._pass(line, trade)
            released.append(trade)
            assert line.last is not None
        if line.held:
            line.held_since_us = min(trade.received_us for trade in line.held.values())
        else:
            self._open.discard(symbol)
            line.asked = None
        return released

    def _hold(self, line: _Line, trade: Trade) -> list[Trade]:
        if trade.trade_id in line.held:
            self.counts.duplicates += 1
            return []
        if not line.held:
            line.held_since_us = trade.received_us
            self._open.add(trade.symbol)
        elif len(line.held) >= 2 * HELD_LIMIT:
            return self._overflow(line, trade)
        line.held[trade.trade_id] = trade
        return []

    def _overflow(self, line: _Line, trade: Trade) -> list[Trade]:
        """The repair takes too long: go on without it; what it still brings is handed on as late."""
        gap = self._gap(line, trade.symbol)
        self._skip_to(line, trade.symbol, gap.last_id + 1, gap.to_us)
        line.held[trade.trade_id] = trade
        return self._follow(line, trade.symbol)

    def _behind(self, line: _Line, trade: Trade) -> list[Trade]:
        if self._was_abandoned(line, trade.trade_id):
            self.counts.late += 1
            return [_flagged(trade, LATE)]
        if trade.event_us <= line.last_us or trade.flags & (SNAPSHOT | BACKFILL):
            self.counts.duplicates += 1
            return []
        if line.suspects and trade.trade_id <= line.suspects[-1].trade_id:
            self.counts.duplicates += len(line.suspects)
            line.suspects.clear()
        line.suspects.append(trade)
        return self._rebase(line, line.suspects) if len(line.suspects) >= REBASE_AFTER else []

    def _rebase(self, line: _Line, trades: Sequence[Trade]) -> list[Trade]:
        released = sorted(trades, key=lambda trade: (trade.event_us, trade.trade_id))
        line.held.clear()
        line.asked = None
        line.abandoned.clear()
        line.suspects = []
        line.last, line.last_us = released[-1].trade_id, released[-1].event_us
        self._open.discard(released[-1].symbol)
        self.counts.rebased += 1
        return released

    def _gap(self, line: _Line, symbol: str) -> Gap:
        assert line.last is not None
        first_held = line.held[min(line.held)]
        return Gap(symbol, line.last + 1, first_held.trade_id - 1, line.last_us, first_held.event_us)

    def _widened(self, line: _Line, gap: Gap, now_us: int) -> Gap:
        """The gap up to the last hole that lies within `SPAN_IDS` and had its time, too: one call of a venue fills them all."""
        patient = [n for n, trade in line.held.items() if now_us - trade.received_us >= self.hold_us]
        last_id = min(gap.first_id + SPAN_IDS, max(patient, default=0)) - 1
        while last_id in line.held:
            last_id -= 1
        if last_id <= gap.last_id:
            return gap
        behind = line.held[min(n for n in line.held if n > last_id)]
        return Gap(gap.symbol, gap.first_id, last_id, gap.from_us, behind.event_us)

    def _skip_to(self, line: _Line, symbol: str, next_id: int, at_us: int) -> list[Gap]:
        """Give up the ids before `next_id` that are not handed on yet; nothing when there are none."""
        assert line.last is not None
        if next_id <= line.last + 1:
            return []
        missing = Gap(symbol, line.last + 1, next_id - 1, line.last_us, max(line.last_us, at_us))
        self._abandon(line, missing.first_id, missing.last_id)
        self.counts.lost += missing.size
        line.last = missing.last_id
        return [missing]

    def _abandon(self, line: _Line, first: int, last: int) -> None:
        line.abandoned.append((first, last))
        del line.abandoned[:-ABANDONED_LIMIT]

    def _was_abandoned(self, line: _Line, trade_id: int) -> bool:
        """True once for an id of an abandoned range: the range is cut around it."""
        for place, (first, last) in enumerate(line.abandoned):
            if first <= trade_id <= last:
                parts = [(first, trade_id - 1), (trade_id + 1, last)]
                line.abandoned[place : place + 1] = [part for part in parts if part[0] <= part[1]]
                self.counts.lost = max(0, self.counts.lost - 1)
                return True
        return False


def _by_id(trade: Trade) -> int:
    return trade.trade_id


def _flagged(trade: Trade, flags: int) -> Trade:
    return msgspec.structs.replace(trade, flags=trade.flags | flags)
