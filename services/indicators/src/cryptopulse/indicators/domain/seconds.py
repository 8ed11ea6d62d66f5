"""The live seconds of one symbol from one source: from the runs that its minutes are made of, for the stream alone."""

from __future__ import annotations

from typing import Final

import msgspec

from cryptopulse.indicators.domain.bars import (
    Bar,
    Run,
    bar_of,
    flat_bar,
    is_whole,
    place_run,
    reopened,
)

SECOND_MS: Final = 1_000
GRACE_MS: Final = 500
"""How long after its end, by the venue's clock, a second waits for stragglers."""
LATE_MS: Final = 3_000
"""A late trade corrects the seconds that closed so long ago at most; older ones are left to the minute."""
MAX_OPEN: Final = 4
"""Seconds that wait for the clock; while it stands still (we are behind) the oldest closes when another opens."""
MAX_QUIET_MS: Final = 60_000
"""A longer silence stays a hole: nobody could resume over it."""


class Seconds(msgspec.Struct, array_like=True):
    """State of one series: the bars that wait for the clock, the closed ones of the last `LATE_MS`, and what was not taken.

    Until late trades go beyond those, the seconds of a minute in which anything was traded fold to exactly that minute.
    `next_id` is the trade id that a gapless next second begins with.
    """

    dense_ids: bool = False
    simulated: bool = False
    waiting: list[Bar] = []
    kept: list[Bar] = []
    closed_until: int = 0
    next_id: int | None = None
    closed: list[Bar] = []

    def add(self, run: Run) -> None:
        """Fold a run in. Must run under `bars.EXACT`, as `close_before`."""
        second, waiting = run.last_us // 1_000_000 * SECOND_MS, self.waiting
        if second < self.closed_until:
            self._late(run, second)
            return
        place_run(waiting, run, second, simulated=self.simulated)
        if len(waiting) > MAX_OPEN:
            self._close_until(waiting[0].open_time + SECOND_MS, is_live=False)

    def close_before(self, limit_ms: int, *, is_live: bool) -> None:
        """Close every second that ends at or before `limit_ms` by the venue's clock.

        Quiet seconds are flat when the feed `is_live`, or when the ids prove that nothing is missing; else they stay
        absent.
        """
        self._close_until(limit_ms, is_live=is_live)
        end = min(limit_ms, self.waiting[0].open_time) if self.waiting else limit_ms
        self._pass(end - end % SECOND_MS, fill=is_live)

    def take(self) -> list[Bar]:
        """What closed or was corrected (`revision` > 0) since the last time, in that order."""
        told, self.closed = self.closed, []
        return told

    def _close_until(self, limit_ms: int, *, is_live: bool) -> None:
        while self.waiting and self.waiting[0].open_time + SECOND_MS <= limit_ms:
            bar = self.waiting.pop(0)
            is_next = self.next_id is not None and bar.first_id == self.next_id
            misses = self._misses(bar)
            if misses:
                self._doubt()
            self._pass(bar.open_time, fill=is_next or (is_live and not misses))
            if self.dense_ids and bar.first_id is not None and bar.last_id is not None:
                bar.complete = is_next and bar.last_id - bar.first_id + 1 == bar.trades
            else:
                bar.complete = bool(self.kept) and self.kept[-1].open_time + SECOND_MS == bar.open_time
            self._close(bar)

    def _misses(self, bar: Bar) -> bool:
        """True when trade ids are missing before this bar."""
        return (
            self.dense_ids
            and self.next_id is not None
            and bar.first_id is not None
            and bar.first_id > self.next_id
        )

    def _doubt(self) -> None:
        """Trades are missing: they may belong to the seconds before, back to the last that had any."""
        for index in range(len(self.kept) - 1, -1, -1):
            bar = self.kept[index]
            if bar.complete:
                bar = self.kept[index] = msgspec.structs.replace(
                    bar, complete=False, revision=bar.revision + 1
                )
                self.closed.append(bar)
            if bar.trades:
                break

    def _pass(self, until: int, *, fill: bool) -> None:
        """Let the quiet seconds before `until` pass: as flat bars, or as a hole."""
        start = self.closed_until
        if not start or until <= start:
            return
        if fill and until - start <= MAX_QUIET_MS:
            last = self.kept[-1]
            for second in range(start, until, SECOND_MS):
                bar = flat_bar(
                    second, last.close, last_id=last.last_id, complete=True, simulated=self.simulated
                )
                self._close(bar)
        self.closed_until = until

    def _close(self, bar: Bar) -> None:
        kept = self.kept
        kept.append(bar)
        self.closed.append(bar)
        self.closed_until = bar.open_time + SECOND_MS
        if bar.last_id is not None:
            self.next_id = bar.last_id + 1
        while len(kept) > 1 and kept[0].open_time < self.closed_until - LATE_MS:
            del kept[0]

    def _late(self, run: Run, second: int) -> None:
        """A late run in its closed second, under a new revision; in a hole it makes the second."""
        if second < self.closed_until - LATE_MS:
            return
        kept = self.kept
        place = next((i for i, bar in enumerate(kept) if bar.open_time >= second), len(kept))
        before = kept[place - 1] if place else None
        if place < len(kept) and kept[place].open_time == second:
            new = kept[place] = reopened(kept[place], run)
            if self.dense_ids:
                new.complete = is_whole(new, before, complete=new.complete)
        else:
            new = bar_of(run, second, simulated=self.simulated)
            new.complete = False
            kept.insert(place, new)
        if place == len(kept) - 1 and new.last_id is not None:
            self.next_id = max(self.next_id or 0, new.last_id + 1)
        self.closed.append(new)
