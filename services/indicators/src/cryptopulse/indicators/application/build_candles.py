"""Ticks in; latest prices and closed candles out, for one shard. No I/O: the same batches give the same state.

Trades of a batch are grouped by symbol and second and folded a whole run at a time; what is per tick is only the grouping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from math import exp
from typing import Final

from cryptopulse.common.contracts.intervals import MINUTE_MS
from cryptopulse.common.contracts.prices import STALE_AFTER_MS, ExcludedSource, PriceUpdate
from cryptopulse.common.contracts.ticks import SNAPSHOT, Conflated, Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.indicators.application.market_state import MarketState, TargetState, VenueState
from cryptopulse.indicators.application.wholeness import are_whole, reached, witness_of
from cryptopulse.indicators.domain.bars import EXACT, Run, summarise, summarise_conflated
from cryptopulse.indicators.domain.candle_series import DENSE_ID_VENUES, CandleSeries, Closed, TooLate
from cryptopulse.indicators.domain.consolidated import SHOWN, Memory, SourceView, consolidate, source_price
from cryptopulse.indicators.domain.day_stats import DayStats
from cryptopulse.indicators.domain.seconds import GRACE_MS as SECOND_GRACE_MS
from cryptopulse.indicators.domain.trade_ids import TradeIds

RATE_ASSETS: Final = ("USDT", "USDC", "EUR")
"""Assets whose USD rate others are converted by. Each is priced only in USD and in those before it, so that no rate
rests on itself."""
WEIGHT_TAU_US: Final = 3_600_000_000
EVALUATE_US: Final = 20_000
"""A consolidated price with several sources is evaluated at most this often while ticks arrive."""
GRACE_MS: Final = 2_000
LATE_US: Final = 5_000_000
"""Trades older than this when they are received tell nothing of the price of now, and it nothing of theirs."""
LIVE_US: Final = 10_000_000
REFERENCE_US: Final = 900_000_000
MOST_SPOILED: Final = 16
NO_PRICE_OF_NOW: Final = frozenset({"stale", "fallback"})
CENT_MILLIONTHS: Final = Decimal("1E-8")

Rate = Callable[[str, int], Decimal | None]
"""USD per unit of a quote asset at a time in us; None when unknown or stale."""


def converts(base: str, quote: str) -> bool:
    """Whether a pair may take part in the USD price of its base."""
    if quote == "USD" or base not in RATE_ASSETS:
        return quote == "USD" or quote in RATE_ASSETS
    return quote in RATE_ASSETS and RATE_ASSETS.index(quote) < RATE_ASSETS.index(base)


class ShardMarket:
    """The market of one shard. `closed` and `too_late` collect what happened until the caller takes it."""

    def __init__(self, shard: int, epoch: int, rate: Rate, state: MarketState | None = None) -> None:
        self.shard = shard
        self.epoch = epoch
        self.state = state or MarketState()
        self._rate = rate
        self.closed: list[tuple[str, str, Closed]] = []
        self.too_late: set[tuple[str, str, int]] = set()
        self.references: dict[str, ReferencePrice] = {}
        self.new_references: dict[str, ReferencePrice] = {}
        self.down: dict[str, int] = {}
        """Venue -> our time in us since when its feed is known to be down."""
        self.stats: dict[tuple[str, str], DayStats] = {}
        self.dirty_venues: dict[str, VenueState] = {}
        self.dirty_targets: dict[str, TargetState] = {}
        self.new_pairs: set[tuple[str, str]] = set()
        """(venue, symbol) seen for the first time by this owner: the catalogue may not know them."""
        self.ticks = 0
        self.refused_batches = 0
        self._inputs: dict[str, list[VenueState]] = {}
        self._targets: dict[str, list[TargetState]] = {}
        for venue_state in self.state.venues.values():
            self._wire(venue_state)

    # --- ticks ---------------------------------------------------------------------------------------------------

    def on_batch(self, batch: TickBatch) -> None:
        """Take a batch in. A batch of an older owner of the feed is refused and counted."""
        state, venue = self.state, batch.venue
        lease = f"{venue}/{batch.part}"
        if batch.epoch < state.epochs.get(lease, 0):
            self.refused_batches += 1
            return
        state.epochs[lease] = batch.epoch
        for reference in batch.references:
            self._on_reference(reference)
        if not (batch.trades or batch.quotes or batch.conflated):
            return
        state.offsets[venue] = batch.clock_offset_us
        with localcontext(EXACT):
            for quote in {quote.symbol: quote for quote in batch.quotes}.values():
                self._on_quote(venue, quote, simulated=batch.simulated)
            for symbol, trades in _grouped(batch.trades).items():
                self._on_trades(venue, symbol, trades, simulated=batch.simulated)
            for row in batch.conflated:
                self._on_conflated(venue, row, simulated=batch.simulated)
        self.ticks += len(batch.trades) + len(batch.quotes) + len(batch.conflated)
        state.heard_us[venue] = max(state.heard_us.get(venue, 0), state.now_us)

    def _on_quote(self, venue: str, quote: Quote, *, simulated: bool) -> None:
        source = self._venue(quote.symbol, venue, simulated=simulated)
        if quote.received_us < source.received_us and source.bid is not None:
            return
        source.bid, source.ask = quote.bid, quote.ask
        self._heard(source, quote.event_us, quote.received_us)
        if source.price is not None:
            self.dirty_venues[f"{source.symbol}|{venue}"] = source
        for target in self._targets[quote.symbol]:
            self.dirty_targets[target.symbol] = target

    def _on_trades(self, venue: str, symbol: str, trades: Sequence[Trade], *, simulated: bool) -> None:
        source = self._venue(symbol, venue, simulated=simulated)
        fresh = source.ids.take(trades)
        if not fresh:
            return
        times = [trade.event_us for trade in fresh]
        first, last = min(times) // 1_000_000, max(times) // 1_000_000
        if first == last:
            run = summarise(fresh, first // 60 * MINUTE_MS)
            self._on_run(source, run, fresh[-1].received_us, first_answer=_is_first_answer(fresh))
            return
        seconds: dict[int, list[Trade]] = {}
        for trade in fresh:
            seconds.setdefault(trade.event_us // 1_000_000, []).append(trade)
        for second in sorted(seconds):
            part = seconds[second]
            run = summarise(part, second // 60 * MINUTE_MS)
            self._on_run(source, run, part[-1].received_us, first_answer=_is_first_answer(part))

    def _on_conflated(self, venue: str, row: Conflated, *, simulated: bool) -> None:
        source = self._venue(row.symbol, venue, simulated=simulated)
        if source.ids.take_range(row.first_id, row.last_id, row.last_event_us):
            self._on_run(source, summarise_conflated(row), row.received_us)

    def _on_run(self, source: VenueState, run: Run, received_us: int, *, first_answer: bool = False) -> None:
        self._collect(source.symbol, source.venue, source.series.add(run, closes=True))
        if run.last_us >= source.event_us or source.price is None:
            source.price = run.close
        source.low = run.low if source.low is None else min(source.low, run.low)
        source.high = run.high if source.high is None else max(source.high, run.high)
        self._heard(source, run.last_us, received_us)
        elapsed = max(0, received_us - source.weight_us)
        source.weight = source.weight * exp(-elapsed / WEIGHT_TAU_US) + float(run.volume)
        source.weight_us = max(source.weight_us, received_us)
        self.dirty_venues[f"{source.symbol}|{source.venue}"] = source
        for target in self._targets[source.symbol]:
            self._on_target_run(target, source, run, first_answer=first_answer)

    def _heard(self, source: VenueState, event_us: int, received_us: int) -> None:
        source.event_us = max(source.event_us, event_us)
        source.received_us = max(source.received_us, received_us)
        source.status = "ok"
        self.state.now_us = max(self.state.now_us, received_us)

    def _on_reference(self, reference: ReferencePrice) -> None:
        known = self.references.get(reference.coin_id)
        if known is None or reference.updated_us >= known.updated_us:
            self.references[reference.coin_id] = reference
            self.new_references[reference.coin_id] = reference

    # --- consolidation -------------------------------------------------------------------------------------------

    def _on_target_run(
        self, target: TargetState, source: VenueState, run: Run, *, first_answer: bool
    ) -> None:
        self.dirty_targets[target.symbol] = target
        now_us = self.state.now_us
        lone = len(self._inputs[target.symbol]) == 1
        if target.price is None and not (target.series.minutes or target.series.closed_until):
            target.since_ms = now_us // 1_000 // MINUTE_MS * MINUTE_MS if first_answer else run.minute
        is_old = target.price is None or target.status in NO_PRICE_OF_NOW
        if lone or is_old or now_us - target.evaluated_us >= EVALUATE_US:
            self._evaluate(target, now_us)
        if first_answer and run.minute < target.since_ms:
            return  # it holds trades of long ago: the first price is not that of their minutes
        price = target.price
        rate = Decimal(1) if target.symbol == source.symbol else self._usd(source.symbol, now_us)
        if price is None or target.status in NO_PRICE_OF_NOW or rate is None:
            self._spoil(target, run.minute)
            return
        low = high = price
        is_single = lone and target.status == "single"
        if is_single:
            low, high = min(price, SHOWN.multiply(run.low, rate)), max(price, SHOWN.multiply(run.high, rate))
        target.low = low if target.low is None else min(target.low, low)
        target.high = high if target.high is None else max(target.high, high)
        prices = (price, high, low, price)
        if now_us + self.state.offsets.get(source.venue, 0) - run.last_us > LATE_US:
            prices = _prices_then(None if is_single else target.series, run, rate)
        money = run.quote_volume if rate == 1 else (run.quote_volume * rate).quantize(CENT_MILLIONTHS)
        sample = Run(
            run.minute, *prices, run.volume, money, run.trades, run.taker_buy_volume, None, None, run.last_us
        )
        self._collect(target.symbol, CONSOLIDATED, target.series.add(sample, closes=False))

    def _usd(self, symbol: str, now_us: int) -> Decimal | None:
        quote = symbol.partition("-")[2]
        return Decimal(1) if quote == "USD" else self._rate(quote, now_us)

    def _views(self, target: TargetState, now_us: int) -> list[SourceView]:
        views = []
        for source in self._inputs[target.symbol]:
            said = source_price(source.price, source.bid, source.ask)
            if said is None:
                continue
            price, uncertainty = said
            name, refused = source.venue, None
            if source.symbol != target.symbol:
                name = f"{source.venue}:{source.symbol}"
                rate = self._usd(source.symbol, now_us)
                if rate is None:
                    refused = "rate_stale"
                else:
                    price, uncertainty = SHOWN.multiply(price, rate), SHOWN.multiply(uncertainty, rate)
            if self.down.get(source.venue, 0) > source.received_us:
                refused = "feed_down"
            views.append(SourceView(name, price, uncertainty, source.received_us, source.weight, refused))
        return views

    def _evaluate(self, target: TargetState, now_us: int) -> None:
        target.evaluated_us = now_us
        views = self._views(target, now_us)
        found = consolidate(views, target.memory, now_us)
        if found is None:
            self._fall_back(target, now_us, views)
            return
        target.price, target.confidence, target.status = found.price, found.confidence, found.status
        target.used, target.excluded = found.used, found.excluded
        target.received_us = max(target.received_us, found.received_us)
        inputs = self._inputs[target.symbol]
        target.event_us = max(source.event_us for source in inputs)
        target.simulated = any(source.simulated for source in inputs)
        lone = inputs[0] if len(inputs) == 1 and inputs[0].symbol == target.symbol else None
        target.bid, target.ask = (lone.bid, lone.ask) if lone else (None, None)

    def _fall_back(self, target: TargetState, now_us: int, views: list[SourceView]) -> None:
        """No source counts: a reference price if there is a fresh one, else the last value, labelled stale."""
        base, _, quote = target.symbol.partition("-")
        reference = next((known for known in self.references.values() if known.symbol == base), None)
        if quote == "USD" and reference is not None and now_us - reference.received_us <= REFERENCE_US:
            target.price, target.status = reference.price, "fallback"
            target.used, target.confidence = ["coingecko"], None
            target.event_us, target.received_us = reference.updated_us, reference.received_us
        else:
            target.status, target.used = "stale", []
        target.bid = target.ask = None
        target.excluded = _reasons(views)

    # --- the clock -----------------------------------------------------------------------------------------------

    def close_by_clock(self, now_us: int) -> None:
        """Close minutes whose end has passed on their venue's clock (ours plus its offset), quiet ones as well."""
        with localcontext(EXACT):
            for series, at_ms, is_live in self._clocks(now_us):
                self._close(series, at_ms - GRACE_MS, is_live=is_live)

    def close_seconds(self, now_us: int | None) -> None:
        """As `close_by_clock`, for the live seconds, and put what closed to what is to be told; None: without the clock."""
        if now_us is not None:
            with localcontext(EXACT):
                for series, at_ms, is_live in self._clocks(now_us):
                    series.close_seconds(at_ms - SECOND_GRACE_MS, is_live=is_live)
        all_series = [source.series for source in self.state.venues.values()]
        all_series += [target.series for target in self.state.targets.values()]
        for series in all_series:
            self.state.unpublished_seconds += [
                bar.candle(series.symbol, series.source, "1s", closed=True) for bar in series.take_seconds()
            ]

    def _clocks(self, now_us: int) -> Iterator[tuple[CandleSeries, int, bool]]:
        """Each series with the time in ms on its venue's clock and whether the feed is live.

        A consolidated one goes by the slowest of its live venues, of all when none is.
        """
        clocks = {venue: (now_us + offset) // 1000 for venue, offset in self.state.offsets.items()}
        live = {venue for venue in clocks if self._is_live(venue, now_us)}
        for source in self.state.venues.values():
            if source.venue in clocks:
                yield source.series, clocks[source.venue], source.venue in live
        for target in self.state.targets.values():
            venues = {source.venue for source in self._inputs[target.symbol]} & clocks.keys()
            heard = venues & live
            if venues:
                yield target.series, min(clocks[venue] for venue in heard or venues), bool(heard)

    def seconds_end_us(self, now_us: int) -> int:
        """At which microsecond of ours a second has closed on the clocks of all live venues."""
        ends = [
            (SECOND_GRACE_MS * 1000 - offset) % 1_000_000
            for venue, offset in self.state.offsets.items()
            if self._is_live(venue, now_us)
        ]
        return max(ends, default=0)

    def _is_live(self, venue: str, now_us: int) -> bool:
        heard = self.state.heard_us.get(venue, 0)
        return now_us - heard <= LIVE_US and self.down.get(venue, 0) <= heard

    def _close(self, series: CandleSeries, limit_ms: int, *, is_live: bool) -> None:
        if not series.closed_until and not series.minutes:
            return
        oldest = series.minutes[0].open_time if series.minutes else series.closed_until
        if oldest + MINUTE_MS <= limit_ms:
            witness = None
            if series.source == CONSOLIDATED:
                witness = witness_of(self.state.targets[series.symbol], self._inputs[series.symbol])
            events = series.close_before(limit_ms, fill_quiet=is_live, witness=witness)
            self._collect(series.symbol, series.source, events)

    def _spoil(self, target: TargetState, open_ms: int) -> None:
        """Trades of this minute could not be counted: it is not complete, and to be merged from the venues' own."""
        if open_ms not in target.spoiled and (target.series.minutes or target.series.closed_until):
            target.spoiled = [*target.spoiled, open_ms][-MOST_SPOILED:]
            self._collect(target.symbol, CONSOLIDATED, target.series.declare(open_ms, complete=False))

    def to_merge(self) -> Iterator[tuple[str, int]]:
        """Consolidated minutes, by symbol and open time, that are not complete though those of their venues are."""
        for target in self.state.targets.values():
            for open_ms in target.spoiled:
                if are_whole(self._inputs[target.symbol], open_ms):
                    yield target.symbol, open_ms

    def _agree(self, symbol: str, open_ms: int) -> None:
        """A venue's minute closed or was corrected: the consolidated ones that rest on it follow."""
        for target in self._targets[symbol]:
            if target.series.closed_minute(open_ms) is not None:
                complete = witness_of(target, self._inputs[target.symbol])(open_ms)
                events = target.series.declare(open_ms, complete=bool(complete))
                self._collect(target.symbol, CONSOLIDATED, events)

    def _collect(self, symbol: str, source: str, events: Sequence[Closed | TooLate]) -> None:
        for event in events:
            if isinstance(event, TooLate):
                if source != CONSOLIDATED:
                    self.too_late.add((source, symbol, event.minute))
                continue
            self.closed.append((symbol, source, event))
            if event.interval == "1m":
                self.stats_of(symbol, source).take(event.bar)
                if source != CONSOLIDATED:
                    for open_ms in reached(self.state.venues[f"{symbol}|{source}"].series, event.bar):
                        self._agree(symbol, open_ms)

    def stats_of(self, symbol: str, source: str) -> DayStats:
        """The rolling day of a series, made on first use."""
        found = self.stats.get((symbol, source))
        if found is None:
            found = self.stats[symbol, source] = DayStats()
        return found

    # --- updates -------------------------------------------------------------------------------------------------

    def price_updates(self, now_us: int) -> list[PriceUpdate]:
        """Updates of everything that changed since the last call, and of prices that became stale meanwhile."""
        updates = []
        limit = now_us - STALE_AFTER_MS * 1000
        for target in self.state.targets.values():
            aged = target.received_us < limit and target.status not in NO_PRICE_OF_NOW
            if target.symbol in self.dirty_targets or aged:
                self._evaluate(target, max(now_us, self.state.now_us) if aged else self.state.now_us)
                if target.price is not None:
                    updates.append(self._target_update(target))
        updates += [
            self._venue_update(source) for source in self.dirty_venues.values() if source.price is not None
        ]
        for source in self.state.venues.values():
            if source.status == "ok" and source.received_us < limit and source.price is not None:
                source.status = "stale"
                updates.append(self._venue_update(source))
        self.dirty_targets = {}
        self.dirty_venues = {}
        return updates

    def _target_update(self, target: TargetState) -> PriceUpdate:
        price = target.price
        assert price is not None
        target.seq += 1
        low = price if target.low is None else min(target.low, price)
        high = price if target.high is None else max(target.high, price)
        target.low = target.high = None
        change, top, bottom, volume = self.stats_of(target.symbol, CONSOLIDATED).figures(
            price, target.event_us // 1000, target.series.forming_bar("1m")
        )
        return PriceUpdate(
            symbol=target.symbol, source=CONSOLIDATED, price=price, low=low, high=high, epoch=self.epoch,
            seq=target.seq, event_us=target.event_us, received_us=target.received_us, status=target.status,
            bid=target.bid, ask=target.ask, confidence=target.confidence, sources_used=target.used,
            excluded=target.excluded, change_24h_pct=change, high_24h=top, low_24h=bottom, volume_24h=volume,
            simulated=target.simulated,
        )  # fmt: skip

    def _venue_update(self, source: VenueState) -> PriceUpdate:
        price = source.price
        assert price is not None
        source.seq += 1
        low = price if source.low is None else min(source.low, price)
        high = price if source.high is None else max(source.high, price)
        source.low = source.high = None
        change, top, bottom, volume = self.stats_of(source.symbol, source.venue).figures(
            price, source.event_us // 1000, source.series.forming_bar("1m")
        )
        return PriceUpdate(
            symbol=source.symbol, source=source.venue, price=price, low=low, high=high, epoch=self.epoch,
            seq=source.seq, event_us=source.event_us, received_us=source.received_us, status=source.status,
            bid=source.bid, ask=source.ask, sources_used=[source.venue], change_24h_pct=change, high_24h=top,
            low_24h=bottom, volume_24h=volume, simulated=source.simulated,
        )  # fmt: skip

    # --- wiring --------------------------------------------------------------------------------------------------

    def _venue(self, symbol: str, venue: str, *, simulated: bool) -> VenueState:
        key = f"{symbol}|{venue}"
        source = self.state.venues.get(key)
        if source is None:
            series = CandleSeries(symbol, venue, venue in DENSE_ID_VENUES, simulated=simulated)
            source = VenueState(symbol, venue, series, TradeIds(), simulated=simulated)
            self.state.venues[key] = source
            self._wire(source)
            self.new_pairs.add((venue, symbol))
        if simulated != source.simulated:
            source.simulated = source.series.simulated = source.series.seconds.simulated = simulated
        return source

    def _wire(self, source: VenueState) -> None:
        base, _, quote = source.symbol.partition("-")
        names = [source.symbol]
        if quote != "USD" and converts(base, quote):
            names.append(f"{base}-USD")
        targets = []
        for name in names:
            target = self.state.targets.get(name)
            if target is None:
                series = CandleSeries(name, CONSOLIDATED, dense_ids=False, simulated=source.simulated)
                target = TargetState(name, series, Memory(), simulated=source.simulated)
                self.state.targets[name] = target
            inputs = self._inputs.setdefault(name, [])
            if source not in inputs:
                inputs.append(source)
            targets.append(target)
        self._targets[source.symbol] = targets


def _prices_then(
    series: CandleSeries | None, run: Run, rate: Decimal
) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Open, high, low and close that a late run gives to a consolidated minute.

    Its own, but within what the minute had where that was priced before and after it: then only its volume is news.
    """
    second = run.last_us // 1_000_000
    seen = None if series is None else series.minute(run.minute)
    if seen is not None and seen.trades and seen.first_second <= second <= seen.last_second:
        inside = min(max(SHOWN.multiply(run.close, rate), seen.low), seen.high)
        return inside, inside, inside, inside
    if rate == 1:
        return run.open, run.high, run.low, run.close
    convert = SHOWN.multiply
    return convert(run.open, rate), convert(run.high, rate), convert(run.low, rate), convert(run.close, rate)


def _is_first_answer(trades: Sequence[Trade]) -> bool:
    """True for trades of a venue's answer to a subscription, its newest ones from before."""
    return bool(trades[0].flags & SNAPSHOT)


def _grouped(trades: Sequence[Trade]) -> dict[str, list[Trade]]:
    groups: dict[str, list[Trade]] = {}
    for trade in trades:
        group = groups.get(trade.symbol)
        if group is None:
            groups[trade.symbol] = [trade]
        else:
            group.append(trade)
    return groups


def _reasons(views: Sequence[SourceView]) -> list[ExcludedSource]:
    return [ExcludedSource(source=view.name, reason=view.refused or "stale") for view in views]
