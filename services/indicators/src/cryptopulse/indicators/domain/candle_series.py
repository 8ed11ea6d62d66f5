"""The candles of one symbol from one source: minutes from trades, longer bars from minutes, closes and corrections.

Longer bars are folded from minutes only, so that intervals can never disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import localcontext
from typing import Final

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import MINUTE_MS, PUBLIC_INTERVALS, Interval, next_open, open_time
from cryptopulse.indicators.domain.bars import (
    EXACT,
    Bar,
    Run,
    correct_part,
    doubts,
    flat_bar,
    fold_bar,
    fold_run,
    is_whole,
    merged,
    minutes_in,
    place_run,
    reopened,
    start_longer,
)
from cryptopulse.indicators.domain.seconds import Seconds

LONGER: Final[tuple[Interval, ...]] = PUBLIC_INTERVALS[1:]
MAX_OPEN_MINUTES: Final = 4
MAX_RUNS: Final = 64
"""How many runs of one second are folded together."""
MAX_QUIET_MINUTES: Final = 1440
KEPT: Final[dict[str, int]] = {"1m": 10, "5m": 3}
"""How many closed bars stay at hand for late trades; one of each other interval."""
DENSE_ID_VENUES: Final = frozenset({"binance", "coinbase", "kraken"})
"""Venues that number the trades of a pair without holes: a missing number is a missing trade."""

Witness = Callable[[int], bool | None]
"""Whether the minute that opens at a time in ms is whole elsewhere; None where nobody has it."""


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """A bar that closed, or a closed one that was corrected (`revision` > 0)."""

    interval: Interval
    bar: Bar


class TooLate(msgspec.Struct, frozen=True, array_like=True):
    """A trade whose minute is no longer at hand: the venue's own candle has to correct it."""

    minute: int


class CandleSeries(msgspec.Struct, array_like=True):
    """State of one (symbol, source). `closed_until` is the open time of the first minute that is not closed, 0 at first.

    `next_id` is the trade id that a gapless next minute begins with. `runs` are the newest ones, all of `second` (since
    1970) of the newest minute: folded together, into it and into `seconds`, before anybody looks.
    """

    symbol: str
    source: str
    dense_ids: bool
    minutes: list[Bar] = []
    longer: dict[str, Bar] = {}
    kept: dict[str, list[Bar]] = {}
    closed_until: int = 0
    next_id: int | None = None
    simulated: bool = False
    seconds: Seconds = msgspec.field(default_factory=Seconds)
    second: int = 0
    runs: list[Run] = []

    def __post_init__(self) -> None:
        self.seconds.dense_ids, self.seconds.simulated = self.dense_ids, self.simulated

    def add(self, run: Run, *, closes: bool) -> Sequence[Closed | TooLate]:
        """Fold a run of one second. With `closes`, older minutes close at once: the venue has gone on.

        Must run under `bars.EXACT`.
        """
        runs, second = self.runs, run.last_us // 1_000_000
        if runs and second == self.second and len(runs) < MAX_RUNS:
            runs.append(run)
            return ()
        self._settle()
        minute = run.minute
        if (minutes := self.minutes) and minutes[-1].open_time == minute:
            self.second = second
            runs.append(run)
            return ()
        self.seconds.add(run)
        if minute < self.closed_until:
            return self._late(run)
        events: list[Closed | TooLate] = []
        place_run(minutes, run, minute, simulated=self.simulated)
        if closes:
            events += self.close_before(minute)
        while len(minutes) > MAX_OPEN_MINUTES:
            events += self.close_before(minutes[0].open_time + MINUTE_MS)
        return events

    def _settle(self) -> None:
        if self.runs:
            with localcontext(EXACT):
                run = merged(self.runs)
                self.runs.clear()
                fold_run(self.minutes[-1], run)
                self.seconds.add(run)

    def close_seconds(self, limit_ms: int, *, is_live: bool) -> None:
        """See `Seconds.close_before`. Must run under `bars.EXACT`."""
        self._settle()
        self.seconds.close_before(limit_ms, is_live=is_live)

    def take_seconds(self) -> list[Bar]:
        """See `Seconds.take`."""
        self._settle()
        return self.seconds.take()

    def close_before(
        self, limit_ms: int, *, fill_quiet: bool = False, witness: Witness | None = None
    ) -> list[Closed | TooLate]:
        """Close every minute that ends at or before `limit_ms`, and longer bars that end with them.

        Quiet minutes between closed ones are flat bars when the ids prove that nothing is missing, or, with
        `fill_quiet`, when the caller knows that the feed was live. Otherwise they stay absent: a visible hole.
        A series that knows no ids has a `witness`: what that never saw is not filled, and it says what is complete.
        """
        self._settle()
        events: list[Closed | TooLate] = []
        while self.minutes and self.minutes[0].open_time + MINUTE_MS <= limit_ms:
            bar = self.minutes.pop(0)
            proven = self.next_id is not None and bar.first_id == self.next_id
            if not proven:
                events += self._doubt(bar)
            self._fill(bar.open_time, events, proven or (fill_quiet and not self._misses(bar)), witness)
            self._judge(bar, None if witness is None else witness(bar.open_time))
            self._close_minute(bar, events)
        end = min(limit_ms, self.minutes[0].open_time) if self.minutes else limit_ms
        if fill_quiet:
            self._fill(end - end % MINUTE_MS, events, True, witness)
        self._close_longer(end, events)
        return events

    def _misses(self, bar: Bar) -> bool:
        """True when trade ids are missing before this bar."""
        return self.dense_ids and None not in (self.next_id, bar.first_id) and bar.first_id > self.next_id  # type: ignore[operator]  # not None

    def _doubt(self, bar: Bar) -> list[Closed | TooLate]:
        """Trades are missing before `bar`: they may belong to the minutes before it, back to the last that had any."""
        if not self._misses(bar):
            return []
        events: list[Closed | TooLate] = []
        kept = self.kept.get("1m", [])
        for index in range(len(kept) - 1, -1, -1):
            old = kept[index]
            if old.complete:
                new = msgspec.structs.replace(old, complete=False, revision=old.revision + 1)
                kept[index] = new
                events += [Closed("1m", new), *self._correct_longer(old, new)]
            if old.trades:
                break
        return events

    def _fill(self, until: int, events: list[Closed | TooLate], fill: bool, witness: Witness | None) -> None:
        if not fill or not self.closed_until or not self.kept.get("1m"):
            return
        if until - self.closed_until > MAX_QUIET_MINUTES * MINUTE_MS:
            return
        last = self.kept["1m"][-1]
        while self.closed_until < until:
            seen = witness is None or witness(self.closed_until)
            if seen is None:
                return
            bar = flat_bar(
                self.closed_until, last.close, last_id=last.last_id, complete=seen, simulated=self.simulated
            )
            self._close_minute(bar, events)

    def _judge(self, bar: Bar, seen: bool | None) -> None:
        """Set `complete`: as was `seen` elsewhere, or every trade number from the end of the previous minute on is there."""
        if seen is not None:
            bar.complete = seen
        elif not self.dense_ids or bar.first_id is None or bar.last_id is None:
            bar.complete = bar.complete and self.closed_until == bar.open_time
        else:
            whole = bar.last_id - bar.first_id + 1 == bar.trades
            bar.complete = whole and self.next_id is not None and bar.first_id == self.next_id

    def _close_minute(self, bar: Bar, events: list[Closed | TooLate]) -> None:
        self._close_longer(bar.open_time, events)
        self.closed_until = bar.open_time + MINUTE_MS
        if bar.last_id is not None:
            self.next_id = bar.last_id + 1
        self._keep("1m", bar)
        events.append(Closed("1m", bar))
        for interval in LONGER:
            longer = self.longer.get(interval)
            if longer is None:
                self.longer[interval] = start_longer(open_time(bar.open_time, interval), bar)
            else:
                fold_bar(longer, bar)
        self._close_longer(self.closed_until, events)

    def _close_longer(self, until: int, events: list[Closed | TooLate]) -> None:
        for interval in LONGER:
            longer = self.longer.get(interval)
            if longer is None or next_open(longer.open_time, interval) > until:
                continue
            del self.longer[interval]
            longer.unsure = doubts(longer) + minutes_in(longer.open_time, interval) - longer.parts
            longer.complete = not longer.unsure
            self._keep(interval, longer)
            events.append(Closed(interval, longer))

    def _keep(self, interval: str, bar: Bar) -> None:
        kept = self.kept.setdefault(interval, [])
        kept.append(bar)
        if len(kept) > KEPT.get(interval, 1):
            del kept[0]

    def _late(self, run: Run) -> list[Closed | TooLate]:
        """Re-open a closed minute for a late run; it and the bars above it get a new revision."""
        kept = self.kept.get("1m", [])
        found = next((i for i, bar in enumerate(kept) if bar.open_time == run.minute), None)
        if found is None:
            return [TooLate(run.minute)]
        old = kept[found]
        new = reopened(old, run)
        if self.dense_ids:
            new.complete = is_whole(new, kept[found - 1] if found else None, complete=old.complete)
        kept[found] = new
        if found == len(kept) - 1 and new.last_id is not None:
            self.next_id = max(self.next_id or 0, new.last_id + 1)
        events = [Closed("1m", new), *self._correct_longer(old, new)]
        return events + self._reassure(kept, found) if self.dense_ids else events

    def _reassure(self, kept: list[Bar], found: int) -> list[Closed | TooLate]:
        """What came late to one minute may be what those around it, up to the next that had trades, were in doubt of."""
        first = last = found
        while first > 0 and (first == found or not kept[first].trades):
            first -= 1
        while last < len(kept) - 1 and (last == found or not kept[last].trades):
            last += 1
        events: list[Closed | TooLate] = []
        for index in range(first, last + 1):
            bar, before = kept[index], kept[index - 1] if index else None
            if index == found:
                continue
            if bar.trades:
                whole = is_whole(bar, before, complete=bar.complete)
            else:
                bar.last_id = bar.last_id if before is None else before.last_id
                after = kept[found if index < found else last]
                whole = bar.complete or (bar.last_id is not None and after.first_id == bar.last_id + 1)
            events += self.declare(bar.open_time, complete=whole)
        return events

    def minute(self, open_ms: int) -> Bar | None:
        """The minute that opens then, still open or closed; None when it is not at hand."""
        self._settle()
        for bar in reversed(self.minutes):
            if bar.open_time == open_ms:
                return bar
        return self.closed_minute(open_ms)

    def closed_minute(self, open_ms: int) -> Bar | None:
        """As `minute`, only a closed one."""
        for bar in reversed(self.kept.get("1m", ())):
            if bar.open_time == open_ms:
                return bar
        return None

    def lacks(self, open_ms: int) -> bool:
        """True for a hole among the closed minutes that are at hand."""
        kept = self.kept.get("1m", [])
        inside = bool(kept) and kept[0].open_time < open_ms < self.closed_until
        return inside and self.closed_minute(open_ms) is None

    def declare(self, open_ms: int, *, complete: bool) -> list[Closed | TooLate]:
        """Correct whether a closed minute is complete; nothing when it is so already, or no longer at hand."""
        kept = self.kept.get("1m", [])
        for index in range(len(kept) - 1, -1, -1):
            old = kept[index]
            if old.open_time == open_ms and old.complete != complete:
                new = kept[index] = msgspec.structs.replace(old, complete=complete, revision=old.revision + 1)
                return [Closed("1m", new), *self._correct_longer(old, new)]
        return []

    def _correct_longer(self, old: Bar | None, new: Bar) -> list[Closed | TooLate]:
        events: list[Closed | TooLate] = []
        for interval in LONGER:
            bucket = open_time(new.open_time, interval)
            forming = self.longer.get(interval)
            if forming is not None and forming.open_time == bucket:
                correct_part(forming, old, new)
                continue
            for index, bar in enumerate(self.kept.get(interval, [])):
                if bar.open_time == bucket:
                    fixed = msgspec.structs.replace(bar, revision=bar.revision + 1)
                    correct_part(fixed, old, new)
                    self.kept[interval][index] = fixed
                    events.append(Closed(interval, fixed))
        return events

    def forming(self, interval: Interval) -> Candle | None:
        """The bar of this interval that is still open, with everything until now; None when there is none."""
        self._settle()
        minutes = self.minutes
        if interval == "1m":
            return minutes[-1].candle(self.symbol, self.source, "1m", closed=False) if minutes else None
        bar = self.forming_bar(interval)
        return None if bar is None else bar.candle(self.symbol, self.source, interval, closed=False)

    def forming_bar(self, interval: Interval) -> Bar | None:
        """As `forming`, as a bar of its own."""
        self._settle()
        minutes = self.minutes
        if interval == "1m":
            return minutes[-1] if minutes else None
        longer = self.longer.get(interval)
        bar = None if longer is None else msgspec.structs.replace(longer)
        for minute in minutes:
            bucket = open_time(minute.open_time, interval)
            if bar is None or bar.open_time < bucket:
                bar = start_longer(bucket, minute)
            elif bar.open_time == bucket:
                fold_bar(bar, minute)
        return bar

    @property
    def open_from(self) -> int | None:
        """The open time in ms of the oldest minute that is not closed; None before the first trade."""
        if self.minutes:
            return self.minutes[0].open_time
        return self.closed_until or None

    def rebase(self, parts: Sequence[Bar]) -> None:
        """Take stored bars (days, hours, minutes: ascending, without overlap, up to `open_from`) into the longer bars.

        A longer bar that already holds more minutes than the stored parts give, or as many and as whole, stays as it is.
        """
        start = self.open_from
        if start is None:
            return
        for interval in LONGER:
            bucket = open_time(start, interval)
            inside = [part for part in parts if part.open_time >= bucket]
            if not inside:
                continue
            longer = msgspec.structs.replace(inside[0], open_time=bucket, revision=0)
            for part in inside[1:]:
                fold_bar(longer, part)
            known = self.longer.get(interval)
            if (
                known is None
                or known.open_time < bucket
                or (known.parts, -doubts(known)) < (longer.parts, -doubts(longer))
            ):
                self.longer[interval] = longer
