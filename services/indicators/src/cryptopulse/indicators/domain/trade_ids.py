"""Which trades are new: exact de-duplication by trade id, with the gaps that a repair may still fill (step 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cryptopulse.common.contracts.ticks import Trade

MAX_GAPS: Final = 64
REBASE_AFTER_US: Final = 1_000_000
"""An id below the newest whose event is this much later than the newest is a venue that began to count anew."""


class TradeIds(msgspec.Struct, array_like=True):
    """What was seen of one (venue, symbol). `gaps` are id ranges, both ends inclusive, that never came, oldest first."""

    last_id: int = -1
    last_event_us: int = 0
    gaps: list[tuple[int, int]] = []
    duplicates: int = 0

    def take(self, trades: Sequence[Trade]) -> Sequence[Trade]:
        """The trades of this batch that were not taken before, by id. Next to nothing for a gapless run."""
        first, last = trades[0], trades[-1]
        gapless = first.trade_id > self.last_id and last.trade_id - first.trade_id == len(trades) - 1
        if gapless and self._ascends(trades):
            self._advance(first.trade_id, last)
            return trades
        return sorted([trade for trade in trades if self._is_new(trade)], key=_trade_id)

    @staticmethod
    def _ascends(trades: Sequence[Trade]) -> bool:
        if len(trades) < 3:
            return True
        ids = [trade.trade_id for trade in trades]
        return ids == list(range(ids[0], ids[-1] + 1))

    def _advance(self, first_id: int, last: Trade) -> None:
        if self.last_id >= 0 and first_id > self.last_id + 1:
            self._open_gap(self.last_id + 1, first_id - 1)
        self.last_id = last.trade_id
        self.last_event_us = max(self.last_event_us, last.event_us)

    def take_range(self, first_id: int, last_id: int, event_us: int) -> bool:
        """Whether a conflated range is new as a whole (what overlaps is refused: it cannot be split)."""
        if first_id <= self.last_id:
            self.duplicates += 1
            return False
        if self.last_id >= 0 and first_id > self.last_id + 1:
            self._open_gap(self.last_id + 1, first_id - 1)
        self.last_id = last_id
        self.last_event_us = max(self.last_event_us, event_us)
        return True

    def _is_new(self, trade: Trade) -> bool:
        number = trade.trade_id
        if number > self.last_id:
            self._advance(number, trade)
            return True
        for index, (low, high) in enumerate(self.gaps):
            if low <= number <= high:
                self._fill(index, low, high, number)
                return True
        if trade.event_us > self.last_event_us + REBASE_AFTER_US and not trade.flags:
            self.last_id, self.last_event_us, self.gaps = number, trade.event_us, []
            return True
        self.duplicates += 1
        return False

    def _open_gap(self, low: int, high: int) -> None:
        self.gaps.append((low, high))
        if len(self.gaps) > MAX_GAPS:
            del self.gaps[0]

    def _fill(self, index: int, low: int, high: int, number: int) -> None:
        parts = [(a, b) for a, b in ((low, number - 1), (number + 1, high)) if a <= b]
        self.gaps[index : index + 1] = parts


def _trade_id(trade: Trade) -> int:
    return trade.trade_id
