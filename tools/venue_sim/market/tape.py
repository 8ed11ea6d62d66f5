"""Every trade of one instrument, past and live: by id, by time and folded into candles. The venue's own book of record."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.venue_sim.market import bars
from tools.venue_sim.market.history import History
from tools.venue_sim.market.instruments import Instrument

# id, price, size, time in microseconds, whether the taker sold
Trade = tuple[int, int, int, int, bool]

_DAY_US: Final = 86_400_000_000
_MINUTE_US: Final = 60_000_000


class Tape:
    """Live trades in columns behind an optional deterministic past.

    Writers append to `prices`, `sizes` (negative when the taker sold) and `times` directly; ids follow from the
    position, unless the source gives its own in `ids`. Folding happens when somebody asks, never while trades are made.
    """

    def __init__(self, instrument: Instrument, history: History | None, *, own_ids: bool = False) -> None:
        self.instrument = instrument
        self.history = history
        self.prices = array("q")
        self.sizes = array("q")
        self.times = array("q")
        self.ids: array[int] | None = array("q") if own_ids else None
        self.first_id = 1
        self.live_from_ms = 0  # candles before this minute come from the history
        self.listed_from_ms = 0
        self.started_id = 1  # the first trade that was made live
        self.history_hidden = False
        self._forgotten: tuple[int, ...] = (0, 0, 0)
        self._folded = 0
        self._minutes: dict[int, bars.Rows] = {}

    # -- writing

    def begin(self, now_us: int, listed_from_ms: int) -> None:
        """Start the live part at `now_us`: the trades of the current minute so far are taken over from the history."""
        self.listed_from_ms = listed_from_ms
        minute_us = now_us // _MINUTE_US * _MINUTE_US
        self.live_from_ms = minute_us // 1000
        if self.history is None:
            return
        day = self.history.trades(now_us // _DAY_US)
        start, end = np.searchsorted(day.times_us, [minute_us, now_us]).tolist()
        self.first_id = day.first_id + start
        self.prices.extend(day.prices[start:end].tolist())
        self.sizes.extend(np.where(day.sold, -day.sizes, day.sizes)[start:end].tolist())
        self.times.extend(day.times_us[start:end].tolist())
        self.started_id = self.next_id

    @property
    def next_id(self) -> int:
        """Id of the next trade."""
        if self.ids is not None:
            return self.ids[-1] + 1 if self.ids else 1
        return self.first_id + len(self.prices)

    def append(self, price: int, size: int, time_us: int, trade_id: int | None = None) -> Trade:
        """Record one trade; `size` is negative when the taker sold."""
        made = self.next_id if trade_id is None else trade_id
        self.prices.append(price)
        self.sizes.append(size)
        self.times.append(time_us)
        if self.ids is not None:
            self.ids.append(made)
        return made, price, abs(size), time_us, size < 0

    def trim(self, keep: int) -> None:
        """Forget trades beyond the newest `keep`; their candles stay."""
        surplus = len(self.prices) - keep
        if surplus <= 0:
            return
        self._cut(surplus)
        self.first_id += surplus

    def reset_ids(self, first_id: int) -> None:
        """Start the ids over, as venues do after maintenance; older trades can no longer be asked for."""
        self._cut(len(self.prices))
        self.first_id = self.started_id = first_id
        self.history_hidden = True

    def _cut(self, count: int) -> None:
        self.fold()
        gone = self._sum(self._index_of(self.started_id), count)
        self._forgotten = tuple(sum(pair) for pair in zip(self._forgotten, gone, strict=True))
        for column in (self.prices, self.sizes, self.times, self.ids):
            if column is not None:
                del column[:count]
        self._folded = max(0, self._folded - count)

    # -- trades

    def _at(self, index: int) -> Trade:
        size = self.sizes[index]
        made = self.first_id + index if self.ids is None else self.ids[index]
        return made, self.prices[index], abs(size), self.times[index], size < 0

    def _index_of(self, trade_id: int) -> int:
        if self.ids is not None:
            return bisect_left(self.ids, trade_id)
        return min(max(trade_id - self.first_id, 0), len(self.prices))

    def _past(self, day: int) -> list[Trade]:
        assert self.history is not None
        made = self.history.trades(day)
        columns = (made.ids, made.prices, made.sizes, made.times_us, made.sold)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    @property
    def _has_past(self) -> bool:
        return self.history is not None and not self.history_hidden

    def _oldest_live_id(self) -> int:
        return self._at(0)[0] if self.prices else self.next_id

    def from_id(self, trade_id: int, limit: int) -> list[Trade]:
        """Up to `limit` trades from an id on, ascending."""
        found: list[Trade] = []
        oldest_live = self._oldest_live_id()
        while self._has_past and trade_id < oldest_live and len(found) < limit:
            assert self.history is not None
            first_day = self.listed_from_ms // bars.DAY_MS
            day = max(self.history.day_of_id(trade_id), first_day)
            trade_id = max(trade_id, self.history.first_id(day))
            page = [trade for trade in self._past(day) if trade_id <= trade[0] < oldest_live]
            found += page[: limit - len(found)]
            trade_id = min(self.history.first_id(day + 1), oldest_live)
        if len(found) < limit:
            start = self._index_of(trade_id)
            stop = min(start + limit - len(found), len(self.prices))
            found += [self._at(index) for index in range(start, stop)]
        return found

    def latest(self, limit: int, before_id: int | None = None) -> list[Trade]:
        """The newest `limit` trades, or those just before an id; ascending."""
        end_id = self.next_id if before_id is None else min(before_id, self.next_id)
        if self.ids is not None:
            stop = self._index_of(end_id)
            return [self._at(index) for index in range(max(0, stop - limit), stop)]
        if not self._has_past:
            start_id = max(self.first_id, end_id - limit)
        else:
            assert self.history is not None
            start_id = max(self.history.first_id(self.listed_from_ms // bars.DAY_MS), end_id - limit)
        return self.from_id(start_id, max(0, end_id - start_id)) if end_id > start_id else []

    def between(self, start_us: int, end_us: int, limit: int) -> list[Trade]:
        """Trades with start <= time <= end, ascending, the oldest `limit` of them."""
        found: list[Trade] = []
        live_us = self.live_from_ms * 1000
        at = max(start_us, self.listed_from_ms * 1000)
        while self._has_past and at < min(live_us, end_us + 1) and len(found) < limit:
            stop = min(live_us - 1, end_us)
            page = [trade for trade in self._past(at // _DAY_US) if at <= trade[3] <= stop]
            found += page[: limit - len(found)]
            at = (at // _DAY_US + 1) * _DAY_US
        if len(found) < limit:
            first = bisect_left(self.times, start_us)
            stop_index = min(bisect_right(self.times, end_us), first + limit - len(found))
            found += [self._at(index) for index in range(first, stop_index)]
        return found

    def until(self, end_us: int, limit: int) -> list[Trade]:
        """The newest `limit` trades up to a time, ascending."""
        if not self.times or end_us >= self.times[-1]:
            return self.latest(limit)
        if end_us >= self.times[0] or not self._has_past:
            index = bisect_right(self.times, end_us)
            return self.latest(limit, self._at(index)[0])
        assert self.history is not None
        day = self.history.trades(end_us // _DAY_US)
        return self.latest(limit, day.first_id + int(np.searchsorted(day.times_us, end_us, side="right")))

    # -- candles

    def fold(self) -> None:
        """Bring the live minutes up to date with the trades."""
        end = len(self.prices)
        start = self._folded
        if start >= end:
            return
        self._folded = end
        for row in self._live_rows(start, end, bars.MINUTE_MS):
            minute = int(row[bars.OPEN_TIME])
            known = self._minutes.get(minute)
            self._minutes[minute] = row[None, :].copy() if known is None else bars.merge(known, row[None, :])

    def _live_rows(self, start: int, end: int, width_ms: int) -> bars.Rows:
        sizes = np.array(self.sizes[start:end], dtype=np.int64)
        ids = (
            np.arange(self.first_id + start, self.first_id + end, dtype=np.int64)
            if self.ids is None
            else np.array(self.ids[start:end], dtype=np.int64)
        )
        return bars.from_trades(
            np.array(self.times[start:end], dtype=np.int64),
            np.array(self.prices[start:end], dtype=np.int64),
            np.abs(sizes),
            sizes < 0,
            ids,
            width_ms,
        )

    def live_minutes(self, start_ms: int = 0, end_ms: int = 1 << 62) -> bars.Rows:
        """One-minute rows of the live part whose open time lies in [start, end], ascending."""
        self.fold()
        chosen = [row for minute, row in self._minutes.items() if start_ms <= minute <= end_ms]
        if not chosen:
            return bars.empty_rows()
        rows = np.concatenate(chosen)
        return rows[np.argsort(rows[:, bars.OPEN_TIME], kind="stable")]

    def current_minute(self, now_ms: int) -> bars.Rows:
        """The row of the running minute, or no row."""
        self.fold()
        return self._minutes.get(now_ms // bars.MINUTE_MS * bars.MINUTE_MS, bars.empty_rows())

    def _past_rows(self, day: int, *, hourly: bool) -> bars.Rows:
        """Rows of a past day; the day of the start only up to the live part, in minutes."""
        assert self.history is not None
        if (day + 1) * bars.DAY_MS <= self.live_from_ms:
            return self.history.hours(day) if hourly else self.history.minutes(day)
        rows = self.history.minutes(day)
        return rows[rows[:, bars.OPEN_TIME] < self.live_from_ms]

    async def rows(self, interval: str, start_ms: int, end_ms: int) -> bars.Rows:
        """Candles of an interval with start <= open time <= end, ascending; intervals without trades are absent.

        Yields to the loop between days, so that years of candles do not stop the live market.
        """
        if interval == "1s":
            return self._second_rows(start_ms, end_ms)
        start_ms = max(start_ms, self.listed_from_ms)
        begin = bars.bucket_start(start_ms, interval)
        if begin < start_ms:
            begin = bars.next_bucket(begin, interval)
        stop = bars.next_bucket(bars.bucket_start(end_ms, interval), interval) - 1
        hourly = interval[-1] in "hdwM"
        parts = []
        if self.history is not None and begin < self.live_from_ms:
            last = min(stop, self.live_from_ms - 1)
            for day in range(begin // bars.DAY_MS, last // bars.DAY_MS + 1):
                parts.append(self._past_rows(day, hourly=hourly))
                await asyncio.sleep(0)
        parts.append(self.live_minutes(begin, stop))
        rows = np.concatenate(parts)
        rows = rows[(rows[:, bars.OPEN_TIME] >= begin) & (rows[:, bars.OPEN_TIME] <= stop)]
        return rows if interval == "1m" else bars.fold(rows, interval)

    def _second_rows(self, start_ms: int, end_ms: int) -> bars.Rows:
        end_ms = min(end_ms, start_ms + 1_000_000)
        trades = self.between(start_ms * 1000, end_ms * 1000 + 999_999, 200_000)
        if not trades:
            return bars.empty_rows()
        ids, prices, sizes, times, sold = (np.array(column) for column in zip(*trades, strict=True))
        return bars.from_trades(times, prices, sizes, sold, ids, 1_000)

    def recent_minutes(self, start_ms: int) -> bars.Rows:
        """One-minute rows from a moment in the last days until now, at once."""
        parts = []
        start_ms = max(start_ms, self.listed_from_ms)
        if self.history is not None and start_ms < self.live_from_ms:
            for day in range(start_ms // bars.DAY_MS, (self.live_from_ms - 1) // bars.DAY_MS + 1):
                rows = self._past_rows(day, hourly=False)
                parts.append(rows[rows[:, bars.OPEN_TIME] >= start_ms])
        parts.append(self.live_minutes(start_ms))
        return np.concatenate(parts)

    def totals(self, first_id: int, last_id: int) -> tuple[int, int, int]:
        """Number, size and price x size of the trades with first <= id <= last, of the past too."""
        if self._has_past and first_id < self._oldest_live_id():
            found = self.from_id(first_id, last_id - first_id + 1)
            volume = sum(trade[2] for trade in found)
            return len(found), volume, sum(trade[1] * trade[2] for trade in found)
        return self._sum(self._index_of(first_id), self._index_of(last_id + 1))

    def totals_since_start(self) -> tuple[int, int, int]:
        """Number, size and price x size of every trade that was made live, whether it is still kept or not."""
        kept = self._sum(self._index_of(self.started_id), len(self.prices))
        return kept[0] + self._forgotten[0], kept[1] + self._forgotten[1], kept[2] + self._forgotten[2]

    def _sum(self, start: int, stop: int) -> tuple[int, int, int]:
        if stop <= start:
            return 0, 0, 0
        sizes = np.abs(np.array(self.sizes[start:stop], dtype=np.int64))
        notional = np.array(self.prices[start:stop], dtype=np.int64) * sizes
        low = int((notional & 0xFFFFFF).sum())
        return stop - start, int(sizes.sum()), (int((notional >> 24).sum()) << 24) + low

    def live_columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Copies of the live prices, signed sizes and times."""
        return (np.array(self.prices), np.array(self.sizes), np.array(self.times))
