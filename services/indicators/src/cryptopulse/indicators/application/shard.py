"""One shard in our hands: what comes in, what goes out, and the order in which effects are stored and messages acked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Final

import msgspec

from cryptopulse.common.bus.protocols import Delivery, Subscription
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import DAY_MS, PUBLIC_INTERVALS, open_time
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.errors import BusUnavailable, StoreUnavailable
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.build_candles import Rate, ShardMarket
from cryptopulse.indicators.application.find_holes import HoleSearch
from cryptopulse.indicators.application.market_state import SNAPSHOT_VERSION, MarketState
from cryptopulse.indicators.application.ports import (
    CandleStore,
    Changed,
    HistoryRequests,
    LatestStore,
    MarketPublisher,
)
from cryptopulse.indicators.application.scores import scores_of
from cryptopulse.indicators.application.store_history import FROM_TICKS, HistoryKeeper
from cryptopulse.indicators.application.update_indicators import IndicatorBook, Key
from cryptopulse.indicators.domain.candle_series import CandleSeries
from cryptopulse.indicators.domain.history import bar_of_candle
from cryptopulse.indicators.domain.signals import SignalBoard

log = get_logger(__name__)

SAVE_AT_ONCE: Final = 2_000
MOST_UNSAVED: Final = 50_000
"""More closed candles than this waiting for Postgres: ticks are no longer acked, so the queue holds them back."""
MOST_SECONDS: Final = 20_000
"""More live seconds than this waiting for the bus: the oldest are dropped."""
SETTLE_MS: Final = 1_000
"""How long after the last history message of a symbol its series are read anew."""
LAGGING_US: Final = 1_000_000
"""Ticks that waited longer than this are folded without looking at forming indicators."""
CAUGHT_UP_US: Final = 3_000_000
"""A queue that brought nothing for so long is empty."""
MERGE_TRIES: Final = 3
MOST_MERGES: Final = 10_000
PART_SECONDS: Final = 0.005
"""So long the looks at forming bars hold the loop at once."""

closed_total = metrics.counter("cryptopulse_candles_closed_total", "Candles closed or corrected")
tick_age = metrics.histogram("cryptopulse_tick_age_seconds", "From receipt at the ingestor to the fold")
late_total = metrics.counter("cryptopulse_late_ticks_total", "Trades of minutes no longer at hand")
backpressure_total = metrics.counter(
    "cryptopulse_indicators_backpressure_total",
    "Forming bars that were not looked at because ticks waited too long",
)
dropped_total = metrics.counter("cryptopulse_seconds_dropped_total", "Live 1s candles that were never told")
rebuilt_total = metrics.counter("cryptopulse_series_rebuilt_total", "Indicator series folded anew")


class ShardWorker:
    """Owns a shard between `open` and `close`. All methods run on one loop; the storing ones take turns."""

    def __init__(
        self,
        shard: int,
        epoch: int,
        *,
        rate: Rate,
        store: CandleStore,
        latest: LatestStore,
        publisher: MarketPublisher,
        requests: HistoryRequests,
        clock: Clock,
        live_sources: Collection[str] | None = frozenset({CONSOLIDATED}),
    ) -> None:
        self.shard = shard
        self.epoch = epoch
        self.market = ShardMarket(shard, epoch, rate)
        self.book = IndicatorBook(store)
        self.board = SignalBoard(epoch)
        self.ticks: Subscription | None = None
        self.history: Subscription | None = None
        self.fenced = False
        self.lag_us = 0
        self._rate = rate
        self._store = store
        self._latest = latest
        self._publisher = publisher
        self._clock = clock
        self._live_sources = live_sources
        self._keeper = HistoryKeeper(store, epoch, self.market.state.without_rate)
        self._turn = asyncio.Lock()
        self._restore_turn = asyncio.Lock()
        self._last: Delivery | None = None
        self._acked: Delivery | None = None
        self._reload: dict[tuple[str, str], int] = {}
        self._holes = HoleSearch(store, requests)
        self._merges: dict[tuple[str, int], int] = {}
        self._followed: set[tuple[str, str]] = set()
        self._restoring: dict[str, bytes] | None = None
        self._formed_ms = 0
        self._gone: set[str] = set()
        self._handled_us = 0
        self._opened_us = clock.now_us()
        self._round = 0
        self._snapped_us = 0

    # --- beginning and end ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Go on from the newest snapshot. Series of indicators follow in the background (`warm`)."""
        packed = await self._latest.load_snapshot(self.shard)
        if packed is not None:
            try:
                state = msgspec.msgpack.decode(packed, type=MarketState)
            except msgspec.DecodeError as error:
                log.warning("snapshot not understood: built anew", shard=self.shard, error=str(error)[:200])
            else:
                if state.version == SNAPSHOT_VERSION:
                    self.market = ShardMarket(self.shard, self.epoch, self._rate, state)
                    self._keeper.without_rate = state.without_rate
        self._restoring = await self._latest.load_series(self.shard)
        self._follow_all()
        now = self._clock.now_ms() - SETTLE_MS
        for venue in self.market.state.venues.values():
            self._reload[venue.symbol, venue.venue] = now
        for symbol in self.market.state.targets:
            self._reload[symbol, CONSOLIDATED] = now
        if packed is not None:
            # At once: from now on an owner before us that still runs is refused, and tells no second that we tell otherwise.
            await self.snapshot(tells=False)

    async def on_ticks(self, delivery: Delivery) -> None:
        """Fold a batch. Left unacked: `snapshot` acks when its effect is stored."""
        batch: TickBatch = delivery.message
        self.market.on_batch(batch)
        self._last = delivery
        newest = batch.trades[-1].received_us if batch.trades else batch.sent_us
        self.lag_us = max(0, self._clock.now_us() - newest)
        self._handled_us = self._clock.now_us()
        tick_age.observe(self.lag_us / 1e6)
        if self.market.closed or len(self.market.state.targets) != self._targets_known:
            self._after_batch()

    _targets_known = 0

    def _after_batch(self) -> None:
        self._targets_known = len(self.market.state.targets)
        self._follow_all()
        self._take_closed()

    def _follow_all(self) -> None:
        state = self.market.state
        pairs = [(symbol, CONSOLIDATED) for symbol in state.targets]
        pairs += [(venue.symbol, venue.venue) for venue in state.venues.values()]
        for symbol, source in pairs:
            known = (symbol, source) in self._followed
            if not known and (self._live_sources is None or source in self._live_sources):
                self.book.follow(symbol, source)
            self._followed.add((symbol, source))

    def _take_closed(self) -> None:
        state, now_us = self.market.state, self.market.state.now_us
        closed, self.market.closed = self.market.closed, []
        for symbol, source, event in closed:
            candle = event.bar.candle(symbol, source, event.interval, closed=True)
            state.unsaved.append(candle)
            state.unpublished.append(candle)
            values = self.book.on_closed(symbol, source, event.interval, event.bar, as_of_us=now_us)
            if values is not None:
                self._final(values)
        closed_total.inc(len(closed))

    def _final(self, values: IndicatorUpdate) -> None:
        self.market.state.unpublished_values.append(values)
        self._tell(values)
        key: Key = (values.symbol, values.source, values.interval)
        self.book.series[key].inside = self.board.inside(key)

    def _tell(self, values: IndicatorUpdate) -> None:
        self.market.state.unpublished_signals += self.board.on_values(values, now_us=self._clock.now_us())

    async def close(self, *, lost: bool) -> None:
        """Hand over: stop consuming, store every effect, ack, close the channels. With `lost`, only close."""
        for subscription in (self.history, self.ticks):
            if subscription is not None:
                await subscription.pause()
        if not lost and not self.fenced:
            try:
                await self.store_closed()
                await self.snapshot()
                await self.snapshot(tells=False)  # what the first one told, nobody tells again
            except (StoreUnavailable, BusUnavailable) as error:
                log.warning(
                    "shard handed over without a last snapshot", shard=self.shard, error=str(error)[:200]
                )
        for subscription in (self.history, self.ticks):
            if subscription is not None:
                await subscription.close()

    # --- history -------------------------------------------------------------------------------------------------

    async def on_history(self, delivery: Delivery) -> None:
        """Store backfilled candles; raising leaves the message to be tried again."""
        await self._restore()
        batch: HistoryBatch = delivery.message
        waiting = dict(self._keeper.without_rate)
        await self._note(await self._keeper.take(batch, again=delivery.redelivered))
        if self._keeper.without_rate != waiting:
            await self.snapshot()

    async def _note(self, changed: list[Changed]) -> None:
        """Have what rests on changed candles done anew."""
        now = self._clock.now_ms()
        for item in changed:
            candle = item.candle
            if item.corrected:
                self.market.state.unpublished.append(candle)
            self._reload[candle.symbol, candle.source] = now
            key: Key = (candle.symbol, candle.source, candle.interval)
            self.book.note_history(key, candle.open_time, corrected=item.corrected)
        await self._save_marks()

    async def _restore(self) -> None:
        """Go on from the saved series, once, before anything is judged against them."""
        async with self._restore_turn:
            if self._restoring is None:
                return
            states, pending = self._restoring, list(self.market.state.unsaved)
            restored = await self.book.restore(states, pending)
            self._restoring = None
            for key, open_time, values, inside in self.book.primes:
                self.board.prime(key, open_time, values, inside)
            self.board.expect(self.market.state.pending_signals)
            self.book.primes = []
            untold, self.book.untold = self.book.untold, []
            for update in untold:
                self._final(update)
            log.info("series restored", shard=self.shard, restored=restored, saved=len(states))

    async def warm(self) -> None:
        """One round of background work: restore saved series, re-read what history changed, rebuild what is dirty."""
        await self._restore()
        now = self._clock.now_ms()
        for name, at in list(self._reload.items()):
            if now - at >= SETTLE_MS and self._reload.get(name) == at:
                await self._read_again(*name)
                if self._reload.get(name) == at:
                    del self._reload[name]
        waiting = {symbol for symbol, _ in self._reload}
        for key in list(self.book.dirty):
            if key[0] in waiting or self.market.state.unsaved:
                continue
            for values in await self.book.rebuild(key):
                self._final(values)
            rebuilt_total.inc()
            await asyncio.sleep(0)

    async def _read_again(self, symbol: str, source: str) -> None:
        """Re-read the rolling day and the longer forming bars of a series from stored candles."""
        series = self._series(symbol, source)
        if series is None or series.open_from is None:
            return
        start = series.open_from
        rows = await self._store.range(
            symbol, source, "1m", from_ms=start - DAY_MS - 600_000, to_ms=start, limit=1_600
        )
        today, hour = open_time(start, "1d"), open_time(start, "1h")
        first = min(open_time(start, "1M"), open_time(start, "1w"))
        days = await self._store.range(symbol, source, "1d", from_ms=first, to_ms=today, limit=40)
        hours = await self._store.range(symbol, source, "1h", from_ms=today, to_ms=hour, limit=30)
        if series.open_from != start:
            # A minute closed meanwhile: the next round reads it as well.
            self._reload[symbol, source] = self._clock.now_ms()
            return
        if len(rows) > 1:
            self.market.stats_of(symbol, source).load(
                [(row.open_time, row.high, row.low, row.close, row.volume) for row in rows]
            )
        minutes = [row for row in rows if row.open_time >= hour]
        series.rebase([bar_of_candle(row) for row in (*days, *hours, *minutes)])

    def _series(self, symbol: str, source: str) -> CandleSeries | None:
        state = self.market.state
        if source == CONSOLIDATED:
            target = state.targets.get(symbol)
            return None if target is None else target.series
        venue = state.venues.get(f"{symbol}|{source}")
        return None if venue is None else venue.series

    # --- out -----------------------------------------------------------------------------------------------------

    def tick_clock(self) -> None:
        """Close what the clock closes, unless ticks of the past still wait for us: then their own times close minutes."""
        if not self._is_behind:
            self.market.close_by_clock(self._clock.now_us())
            self._after_batch()

    @property
    def _is_behind(self) -> bool:
        now_us = self._clock.now_us()
        lags = self.lag_us > LAGGING_US and now_us - self._handled_us < CAUGHT_UP_US
        return lags or now_us - self._opened_us < CAUGHT_UP_US

    async def flush_prices(self) -> None:
        """Publish and store what changed since the last flush, with forming minutes at most once a second."""
        now_us = self._clock.now_us()
        updates = self.market.price_updates(now_us)
        references, self.market.new_references = self.market.new_references, {}
        forming: list[Candle] = []
        if now_us // 1000 - self._formed_ms >= 1_000 and updates:
            self._formed_ms = now_us // 1000
            forming = self._forming_minutes()
        if updates or forming:
            try:
                await self._publisher.prices(self.shard, self.epoch, updates, forming)
            except BusUnavailable as error:
                log.warning("prices not published", shard=self.shard, error=str(error)[:200])
        await self._latest.write(updates, (), (), list(references.values()))

    def _forming_minutes(self) -> list[Candle]:
        found = []
        for symbol, source in self._followed:
            series = self._series(symbol, source)
            candle = None if series is None else series.forming("1m")
            if candle is not None:
                found.append(candle)
        return found

    async def flush_values(self) -> None:
        """Look at the forming bars of all live series; skipped while ticks wait too long (folding goes on).

        Looked at and stored in parts of some milliseconds, between which prices and ticks have their turn.
        """
        parts: list[tuple[list[Candle], list[IndicatorUpdate]]] = []
        lagging = self.lag_us > LAGGING_US
        started = 0.0
        for symbol, source in sorted(self._followed):
            series = self._series(symbol, source)
            if series is None or not (series.minutes or series.longer):
                continue
            if time.perf_counter() - started > PART_SECONDS:
                await asyncio.sleep(0)
                parts.append(([], []))
                started = time.perf_counter()
            forming, values = parts[-1]
            venue_ms = self._venue_ms(symbol, source)
            forming += [bar.candle(symbol, source, "1m", closed=False) for bar in series.minutes[-2:-1]]
            for interval in PUBLIC_INTERVALS:
                bar = series.forming_bar(interval)
                if bar is None:
                    continue
                forming.append(bar.candle(symbol, source, interval, closed=False))
                if lagging:
                    backpressure_total.inc()
                    continue
                value = self.book.provisional((symbol, source, interval), bar, now_ms=venue_ms)
                if value is not None:
                    values.append(value)
        looked = [value for _, values in parts for value in values]
        for value in looked:
            self._tell(value)
        if looked:
            try:
                await self._publisher.live_values(self.shard, self.epoch, looked)
            except BusUnavailable as error:
                log.warning("forming values not published", shard=self.shard, error=str(error)[:200])
        for forming, values in parts:
            await self._latest.write((), forming, values, ())
        await self._write_scores(looked, [candle for forming, _ in parts for candle in forming])

    async def _write_scores(self, values: list[IndicatorUpdate], forming: list[Candle]) -> None:
        """Scores of this shard's consolidated symbols for the market's scanners; stale symbols leave them."""
        scores, stale = scores_of(self.market, values, forming)
        gone = [symbol for symbol in stale if symbol not in self._gone]
        self._gone = set(stale)
        await self._latest.write_scores(scores, gone)

    def _venue_ms(self, symbol: str, source: str) -> int:
        """Now on the venue's clock in ms; for a consolidated series on the slowest of its venues."""
        offsets = self.market.state.offsets
        if source == CONSOLIDATED:
            venues = {v.venue for v in self.market.state.venues.values() if _feeds(v.symbol, symbol)}
            offset = min((offsets.get(venue, 0) for venue in venues), default=0)
        else:
            offset = offsets.get(source, 0)
        return (self._clock.now_us() + offset) // 1000

    async def store_closed(self) -> None:
        """Store closed candles, then tell them, then their indicators and signals; each stays until it is done."""
        async with self._turn:
            if self.fenced:
                return
            state = self.market.state
            failed: StoreUnavailable | None = None
            while state.unsaved:
                part = state.unsaved[:SAVE_AT_ONCE]
                try:
                    await self._store.upsert(part, origin=FROM_TICKS, epoch=self.epoch)
                except StoreUnavailable as error:
                    failed = error
                    break
                del state.unsaved[: len(part)]
            while state.unpublished:
                candles = state.unpublished[:SAVE_AT_ONCE]
                await self._publisher.candles(self.shard, self.epoch, candles)
                del state.unpublished[: len(candles)]
            while state.unpublished_values:
                values = state.unpublished_values[:SAVE_AT_ONCE]
                await self._publisher.closed_values(self.shard, self.epoch, values)
                await self._latest.write((), (), values, ())
                await self._write_scores(values, [])
                del state.unpublished_values[: len(values)]
            if state.unpublished_signals:
                signals = list(state.unpublished_signals)
                await self._publisher.signals(signals)
                await self._latest.write_signals(signals)
                del state.unpublished_signals[: len(signals)]
            if failed is not None:
                raise failed

    def is_snapshot_due(self, every_ms: int) -> bool:
        """True once every `every_ms`: as soon as a second has closed on the clocks of all live venues."""
        now_us, every_us = self._clock.now_us(), every_ms * 1000
        turn = (now_us - self.market.seconds_end_us(now_us)) // every_us
        if turn == self._round or 0 <= now_us - self._snapped_us < every_us // 2:
            return False
        self._round, self._snapped_us = turn, now_us
        return True

    async def snapshot(self, *, tells: bool = True) -> None:
        """Store the whole state, then ack the ticks that it holds and, with `tells`, tell its live seconds.

        A refused snapshot means that we are fenced off.
        """
        async with self._turn:
            seconds = self._close_seconds()
            if len(self.market.state.unsaved) > MOST_UNSAVED:
                return
            await self._save_marks()
            upto = self._last
            if self._restoring is None:
                self.market.state.pending_signals = self.board.pending()
            packed = msgspec.msgpack.encode(self.market.state)
            states = self.book.take_states()
            if not await self._latest.save_snapshot(self.shard, self.epoch, packed):
                self.fenced = True
                log.warning(
                    "snapshot refused: a newer owner has the shard", shard=self.shard, epoch=self.epoch
                )
                return
            await self._latest.save_series(self.shard, states)
            if upto is not None and upto is not self._acked and self.ticks is not None:
                await self.ticks.ack(upto)
                self._acked = upto
            if seconds and tells:
                await self._tell_seconds(seconds)

    def _close_seconds(self) -> list[Candle]:
        """Close what the clock closes; answers all that is to be told once a snapshot holds it."""
        self.market.close_seconds(None if self._is_behind else self._clock.now_us())
        waiting = self.market.state.unpublished_seconds
        dropped = max(0, len(waiting) - MOST_SECONDS)
        dropped_total.inc(dropped)
        del waiting[:dropped]
        return list(waiting)

    async def _tell_seconds(self, seconds: list[Candle]) -> None:
        try:
            await self._publisher.seconds(self.shard, self.epoch, seconds)
        except BusUnavailable as error:
            log.warning("seconds not published", shard=self.shard, error=str(error)[:200])
            return
        del self.market.state.unpublished_seconds[: len(seconds)]

    async def _save_marks(self) -> None:
        """Say of series with a correction under way that their saved state is worthless, before what said so is acked."""
        while marks := self.book.marks():
            waiting = set(self.book.marked)
            await self._latest.save_series(self.shard, marks)
            self.book.marked -= waiting

    # --- holes ---------------------------------------------------------------------------------------------------

    async def ask_for_holes(self) -> None:
        """Ask for venue candles where minutes are missing, incomplete or came too late; each range a few times at most.

        Bars that waited for the history of their rate are converted first, and what could not be counted live is merged.
        """
        await self._restore()
        await self._note(await self._keeper.convert_late())
        await self._merge_spoiled()
        late, self.market.too_late = self.market.too_late, set()
        late_total.inc(len(late))
        series = [venue.series for venue in self.market.state.venues.values()]
        await self._holes.ask(series, late, now_ms=self._clock.now_ms())

    async def _merge_spoiled(self) -> None:
        """Once its venues' bars are stored, and again twice: some may be stored, or end, later."""
        spans: dict[str, list[int]] = {}
        for symbol, minute in self.market.to_merge():
            if self._merges.get((symbol, minute), 0) < MERGE_TRIES:
                spans.setdefault(symbol, []).append(minute)
        for symbol, minutes in spans.items():
            await self._note(await self._keeper.merge(symbol, min(minutes), max(minutes)))
            for minute in minutes:
                self._merges[symbol, minute] = self._merges.get((symbol, minute), 0) + 1
        while len(self._merges) > MOST_MERGES:
            del self._merges[next(iter(self._merges))]


def _feeds(pair: str, target: str) -> bool:
    return pair == target or (target.endswith("-USD") and pair.partition("-")[0] == target.partition("-")[0])
