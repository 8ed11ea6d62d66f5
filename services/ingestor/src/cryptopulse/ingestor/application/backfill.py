"""History by REST: candles newest first, a page at a time, within the budgets, published once confirmed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.feeds import HistoryProgress
from cryptopulse.common.contracts.intervals import (
    DAY_MS,
    MINUTE_MS,
    Interval,
    length_ms,
    next_open,
    open_time,
)
from cryptopulse.common.contracts.topics import HISTORY, shard_of
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.errors import (
    BusUnavailable,
    Invalid,
    NotFound,
    Refused,
    StoreUnavailable,
    UpstreamUnavailable,
)
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.ingestor.application.ports import HistoryMarks, Venue
from cryptopulse.ingestor.domain.history import Covered, Reason, Series, closed_until, pages
from cryptopulse.ingestor.domain.rows import NonsenseError

EMPTY_PAGES: Final = 3
"""So many pages without a candle in a row: the venue has nothing older."""
NONSENSE_TIMES: Final = 4
"""So many answers of which no row could be read: the series is given up, so that it holds back no other."""
QUEUE_LIMIT: Final = 20_000
SETTLED_MS: Final = MINUTE_MS
"""A minute is checked when it has been over for so long: late trades are in the venue's candle by then, and in ours."""
LONGEST_PAUSE_SECONDS: Final = 60.0
_URGENCY: Final[dict[Reason, int]] = {"repair": 0, "request": 1, "hole": 2, "start": 3, "check": 4}
_AT_START: Final[dict[str, int]] = {"1m": 0, "1h": 1, "1d": 2}

_CANDLES = counter("cryptopulse_history_candles_total", "Candles of history handed to the bus.", ("venue",))
_LEFT = gauge("cryptopulse_history_series_left", "Series of history still to fetch.", ("venue",))
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HistoryDepth:
    """How far back each interval is fetched on first sight, in days; 0 leaves it out."""

    minutes_days: int
    hours_days: int
    days_days: int

    def spans(self) -> Mapping[Interval, int]:
        """Interval -> days, the shallow ones first."""
        return {"1d": self.days_days, "1h": self.hours_days, "1m": self.minutes_days}


@dataclass(order=True, slots=True)
class _Job:
    """One page to fetch: ranked by urgency, then by depth, so that every series has its newest page before any goes deep."""

    rank: tuple[int, int, int, int]
    series: Series = field(compare=False)
    empty_pages: int = field(compare=False, default=0)

    def next_page(self, rest: Series, *, was_empty: bool) -> _Job:
        """The job for what is older."""
        urgency, depth, order, number = self.rank
        return _Job((urgency, depth + 1, order, number), rest, self.empty_pages + 1 if was_empty else 0)


@dataclass(slots=True)
class _VenueQueue:
    """What one venue still has to fetch."""

    venue: Venue
    jobs: list[_Job] = field(default_factory=list)
    known: dict[tuple[str, str, str], Series] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    total: int = 0
    done: int = 0
    candles: int = 0
    covered: dict[tuple[str, str], Covered] = field(default_factory=dict)


class Backfill:
    """Fetches series of candles. `natives` answers the venue's name of a symbol; one worker per venue.

    The history of first sight goes on after a restart where it was: pages that the bus confirmed are marked and not
    fetched again. Holes, repairs and requests are always fetched.
    """

    def __init__(
        self,
        venues: Sequence[Venue],
        bus: Publisher,
        clock: Clock,
        depth: HistoryDepth,
        *,
        marks: HistoryMarks,
        shards: int,
        simulated: bool,
    ) -> None:
        self._marks = marks
        self._queues = {venue.name: _VenueQueue(venue) for venue in venues}
        self._bus = bus
        self._clock = clock
        self._depth = depth
        self._shards = shards
        self._simulated = simulated
        self._number = 0
        self._seen: set[tuple[str, str]] = set()
        self._checked: dict[tuple[str, str], int] = {}

    def first_sight(self, venue: str, symbols: Sequence[str]) -> None:
        """Ask for the configured history of symbols that are new here."""
        now = self._clock.now_ms()
        for symbol in symbols:
            if (venue, symbol) in self._seen:
                continue
            self._seen.add((venue, symbol))
            for interval, days in self._depth.spans().items():
                if days > 0 and interval in self._queues[venue].venue.intervals:
                    end = closed_until(now, interval)
                    self.ask(Series(venue, symbol, interval, end - days * DAY_MS, end, "start"))

    def check(self, venue: str, symbols: Sequence[str]) -> None:
        """Ask for the minutes that closed since the last check, one page at most, behind everything else.

        Who builds candles from trades compares them. A symbol whose minutes are asked for anyway is left for the next time.
        """
        end = closed_until(self._clock.now_ms() - SETTLED_MS, "1m")
        queue = self._queues[venue]
        for symbol in symbols:
            start = max(self._checked.get((venue, symbol), end), end - queue.venue.rows_per_page * MINUTE_MS)
            series = Series(venue, symbol, "1m", start, end, "check")
            if series.key in queue.known:
                continue
            self._checked[venue, symbol] = end
            if start < end:
                self.ask(series)

    def ask(self, series: Series) -> bool:
        """Take a series on; False when the same one waits already with at least this range.

        Raises `NotFound` for a venue that is not served here, `Invalid` for an interval that it does not have.
        """
        queue = self._queues.get(series.venue)
        if queue is None:
            raise NotFound(
                f"venue {series.venue!r} is not served here: {', '.join(self._queues) or 'none'} are"
            )
        if series.interval not in queue.venue.intervals:
            have = ", ".join(sorted(queue.venue.intervals, key=length_ms))
            raise Invalid(
                f"{series.venue} has no {series.interval} candles; it has {have}", code="unknown-interval"
            )
        if series.to_ms <= series.from_ms:
            raise Invalid("from_ms must be before to_ms", code="empty-range")
        waiting = queue.known.get(series.key)
        if waiting is not None:
            is_inside = waiting.from_ms <= series.from_ms and series.to_ms <= waiting.to_ms
            if is_inside and waiting.reason != "check":
                return False
            series = replace(
                series, from_ms=min(waiting.from_ms, series.from_ms), to_ms=max(waiting.to_ms, series.to_ms)
            )
        if len(queue.jobs) >= QUEUE_LIMIT:
            raise UpstreamUnavailable(
                f"{len(queue.jobs)} series of {series.venue} wait already", retry_after_seconds=60
            )
        self._number += 1
        rank = (_URGENCY[series.reason], 0, _AT_START.get(series.interval, 0), self._number)
        queue.known[series.key] = series
        heapq.heappush(queue.jobs, _Job(rank, series))
        queue.total += series.reason != "check" and (waiting is None or waiting.reason == "check")
        queue.wake.set()
        return True

    def ask_around(self, venue: str, symbol: str, from_ms: int, to_ms: int) -> None:
        """Ask for the minutes that a loss of trades touches."""
        start, end = open_time(from_ms, "1m"), next_open(open_time(max(from_ms, to_ms), "1m"), "1m")
        try:
            self.ask(Series(venue, symbol, "1m", start, end, "repair"))
        except (Refused, UpstreamUnavailable) as error:
            log.warning("candles around a gap not asked for", venue=venue, symbol=symbol, error=str(error))

    def progress(self, venue: str) -> HistoryProgress | None:
        """How far the venue's history is."""
        queue = self._queues.get(venue)
        if queue is None:
            return None
        return HistoryProgress(series_total=queue.total, series_done=queue.done, candles=queue.candles)

    async def run(self, venue: str, natives: Mapping[str, str], beat: Callable[[], None]) -> None:
        """Work the venue's queue off, for ever."""
        queue = self._queues[venue]
        try:
            queue.covered = await self._marks.load(venue)
        except StoreUnavailable as error:
            log.warning("marks of history not loaded: it begins anew", venue=venue, error=str(error))
        while True:
            beat()
            _LEFT.labels(venue).set(len(queue.jobs))
            if not queue.jobs:
                queue.wake.clear()
                try:
                    async with asyncio.timeout(5.0):
                        await queue.wake.wait()
                except TimeoutError:
                    continue
            job = heapq.heappop(queue.jobs)
            series = queue.known.get(job.series.key)
            if series is not job.series or series is None:
                continue
            rest = await self._newest_page(queue, job, natives, beat)
            if queue.known.get(series.key) is not series:
                continue
            if rest is not None:
                queue.known[series.key] = rest.series
                heapq.heappush(queue.jobs, rest)
                continue
            del queue.known[series.key]
            if series.reason == "check":
                continue
            queue.done += 1
            if queue.done == queue.total:
                log.info("history complete", venue=venue, series=queue.total, candles=queue.candles)

    async def _newest_page(
        self, queue: _VenueQueue, job: _Job, natives: Mapping[str, str], beat: Callable[[], None]
    ) -> _Job | None:
        """Fetch and publish the newest page of a series; the job for what is older, None when that was all."""
        venue, series = queue.venue, job.series
        native = natives.get(series.symbol) or venue.native_by_rule(series.symbol)
        page = self._uncovered(queue, replace(series, to_ms=min(series.to_ms, self._upper(series))))
        if page is None:
            return None
        begin, end = page
        try:
            candles = await self._page(venue, native, series, begin, end, beat)
        except Refused as error:
            log.warning("history refused", venue=venue.name, symbol=series.symbol, error=str(error))
            return None
        except Exception:  # whatever it was: the other series go on
            log.exception("history: unexpected", venue=venue.name, symbol=series.symbol)
            return None
        following = job.next_page(replace(series, to_ms=begin), was_empty=not candles)
        over = following.empty_pages >= EMPTY_PAGES
        self._cover(queue, series, series.from_ms if over else begin, end)
        last = over or self._uncovered(queue, following.series) is None
        await self._publish(
            series, begin, end, candles, final=last, nothing_before=end if over else None, beat=beat
        )
        await self._remember(queue, series)
        queue.candles += len(candles)
        _CANDLES.labels(venue.name).inc(len(candles))
        return None if last else following

    def _uncovered(self, queue: _VenueQueue, series: Series) -> tuple[int, int] | None:
        """The newest page of a series that is not covered yet; None when nothing is left."""
        rows = queue.venue.rows_per_page
        if series.reason != "start":
            return next(pages(series, rows), None)
        known = queue.covered.get((series.symbol, series.interval), Covered())
        return next(pages(replace(series, to_ms=known.below(series.to_ms)), rows), None)

    def _cover(self, queue: _VenueQueue, series: Series, begin: int, end: int) -> None:
        if series.reason == "start":
            place = series.symbol, series.interval
            queue.covered[place] = queue.covered.get(place, Covered()).and_also(begin, end)

    async def _remember(self, queue: _VenueQueue, series: Series) -> None:
        """The page is confirmed: a restart need not fetch it. Without the store it does."""
        covered = queue.covered.get((series.symbol, series.interval))
        if series.reason != "start" or covered is None:
            return
        try:
            await self._marks.save(series.venue, series.symbol, series.interval, covered)
        except StoreUnavailable as error:
            log.debug("marks of history not saved", venue=series.venue, error=str(error))

    def _upper(self, series: Series) -> int:
        return closed_until(self._clock.now_ms(), series.interval)

    async def _page(
        self, venue: Venue, native: str, series: Series, begin: int, end: int, beat: Callable[[], None]
    ) -> list[Candle]:
        pause, nonsense = 1.0, 0
        while True:
            beat()
            try:
                return await venue.candles(native, series.symbol, series.interval, begin, end)
            except UpstreamUnavailable as error:
                nonsense += isinstance(error, NonsenseError)
                if nonsense >= NONSENSE_TIMES:
                    raise Invalid(f"{nonsense} times: {error}", code="venue-nonsense") from error
                wait = min(error.retry_after_seconds or pause, LONGEST_PAUSE_SECONDS)
                log.warning(
                    "history waits",
                    venue=venue.name,
                    symbol=series.symbol,
                    seconds=round(wait, 1),
                    error=str(error),
                )
                await _sleep(wait, beat)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _publish(
        self,
        series: Series,
        begin: int,
        end: int,
        candles: Sequence[Candle],
        *,
        final: bool,
        nothing_before: int | None,
        beat: Callable[[], None],
    ) -> None:
        message = HistoryBatch(
            venue=series.venue,
            symbol=series.symbol,
            interval=series.interval,
            from_ms=begin,
            to_ms=end,
            candles=[_simulated(candle) for candle in candles] if self._simulated else list(candles),
            final=final,
            missing_before_ms=nothing_before,
            simulated=self._simulated,
        )
        shard = shard_of(base_of(series.symbol), self._shards)
        key = key_of(HISTORY, shard=shard, venue=series.venue, symbol=series.symbol)
        message_id = (
            f"history:{series.venue}:{series.symbol}:{series.interval}:{begin}:{end}:{self._clock.now_us()}"
        )
        pause = 0.5
        while True:
            beat()
            try:
                await self._bus.publish(HISTORY, message, key=key, message_id=message_id)
                return
            except BusUnavailable:
                await _sleep(pause, beat)
                pause = min(pause * 2, 10.0)


def _simulated(candle: Candle) -> Candle:
    return msgspec.structs.replace(candle, simulated=True)


async def _sleep(seconds: float, beat: Callable[[], None]) -> None:
    while seconds > 0:
        beat()
        await asyncio.sleep(min(seconds, 5.0))
        seconds -= 5.0
