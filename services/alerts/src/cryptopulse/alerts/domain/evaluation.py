"""The engine of one shard: prices, bars and values in, firings out (step 9). Pure: no clock, no store, no waiting.

Rules on a venue see each trade; rules on the consolidated price see each message's low and high. An input is handled once:
trades by their rising id, prices by (epoch, seq), bars by their opening time. A jump in these is a hole, which `replay` explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from cryptopulse.alerts.domain.definition import source_of_leaf
from cryptopulse.alerts.domain.market import Hole, Market, Position
from cryptopulse.alerts.domain.registry import Registry
from cryptopulse.alerts.domain.replay import Replay
from cryptopulse.alerts.domain.roster import Roster
from cryptopulse.alerts.domain.rules import Cause, Firing, Rule
from cryptopulse.alerts.domain.thresholds import Number, path
from cryptopulse.alerts.domain.wiring import Metric
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.http.alert_conditions import NewListing, SignalCondition
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.intervals import next_open
from cryptopulse.common.contracts.portfolio import PortfolioValued
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.ticks import LATE, TickBatch
from cryptopulse.common.contracts.values import CONSOLIDATED

LONG_HOLE_US: Final = 60_000_000
"""A hole longer than this is not crossed by its ends: its minutes are replayed, so that a late firing tells its minute."""


class ShardEngine:
    """All rules whose home is one shard. Methods that may fire return the firings in the order of their causes."""

    def __init__(self, owns: Callable[[str], bool] = lambda _: True) -> None:
        self._owns = owns
        self._registry = Registry()
        self._roster = Roster(self._registry)
        self._bars: dict[tuple[str, str, str, str], int] = {}
        self._holes: list[Hole] = []

    # --- rules -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._roster.attached)

    def rule(self, rule_id: str) -> Rule | None:
        """A rule that is evaluated here, None when it is not."""
        found = self._roster.attached.get(rule_id)
        return found.rule if found else None

    def add(self, rule: Rule, now_us: int) -> list[Firing]:
        """Evaluate a rule from now on, in place of an earlier version of it.

        A rule that no engine has had before is compared with the price at its creation, so that a crossing between its
        creation and now is not lost.
        """
        fired: list[Firing] = []
        self._roster.add(rule, now_us, fired)
        return fired

    def load(self, rules: Iterable[Rule], now_us: int) -> list[Firing]:
        """`add` for many, when a shard is taken over."""
        fired: list[Firing] = []
        for rule in rules:
            self._roster.add(rule, now_us, fired)
        return fired

    def prune(self) -> None:
        """Forget the markets that no rule uses, after all rules are loaded."""
        self._registry.prune()

    def remove(self, rule_id: str) -> None:
        """Evaluate a rule no longer; unknown ids are ignored."""
        self._roster.remove(rule_id)

    def dirty(self) -> list[Rule]:
        """Rules whose memory changed without a firing."""
        return self._roster.dirty()

    # --- where the markets stand ------------------------------------------------------------------------------------

    def positions(self, *, only_changed: bool = False) -> list[Position]:
        """Where the markets stand; with `only_changed` those that moved since the last such call."""
        found = []
        for market in self._registry.markets.values():
            if only_changed and not market.changed:
                continue
            position = market.position()
            if position is not None:
                found.append(position)
            if only_changed:
                market.changed = False
        return found

    def restore(self, positions: Iterable[Position]) -> None:
        """Stand where the predecessor stood; call it before rules are added. Open holes come up again."""
        for position in positions:
            market = self._registry.market(position.symbol, position.source)
            market.restore(position)
            self._holes += market.holes

    def take_holes(self) -> list[Hole]:
        """Holes found since the last call; each is to be given to `replay`, or to `forget`."""
        holes, self._holes = self._holes, []
        return holes

    def replay(self, hole: Hole, candles: Iterable[Candle], now_us: int) -> list[Firing]:
        """Explain a hole by the minutes in it: late firings, and what is still unknown as a gap. The hole is closed."""
        market = self._registry.markets.get((hole.symbol, hole.source))
        if market is None:
            return []
        if hole in market.holes:
            market.holes.remove(hole)
            market.changed = True
        fired: list[Firing] = []
        Replay(market, hole, now_us, self._roster, fired).run(candles)
        return fired

    def price(self, symbol: str, source: str) -> Decimal | None:
        """The last price that was evaluated."""
        market = self._registry.markets.get((symbol, source))
        return market.price if market else None

    # --- ticks and prices -------------------------------------------------------------------------------------------

    def on_ticks(self, batch: TickBatch, now_us: int) -> list[Firing]:
        """Each trade of a venue, in order; trades that were seen before are dropped by their id."""
        fired: list[Firing] = []
        markets, venue = self._registry.markets, batch.venue
        for trade in batch.trades:
            market = markets.get((trade.symbol, venue))
            if market is None:
                continue
            number = trade.trade_id
            if (number and number <= market.sequence) or (trade.flags & LATE and market.at_us):
                continue
            if number and market.sequence and number > market.sequence + 1:
                self._note_hole(market, trade.event_us, trade.price)
            market.sequence = number or market.sequence
            index = market.index
            price: Number = trade.price
            if index.floor < price < index.ceiling and not market.has_extras:
                # As `_step` does, without the call: this is nearly every trade.
                index.value = price
                market.at_us, market.received_us, market.changed = trade.event_us, trade.received_us, True
                continue
            self._step(market, price, trade.event_us, trade.received_us, now_us, "", batch.simulated, fired)
        for bar in batch.conflated:
            market = markets.get((bar.symbol, venue))
            if market is None or (bar.last_id and bar.last_id <= market.sequence):
                continue
            market.sequence = bar.last_id or market.sequence
            for part, price in enumerate(path(market.index.value, bar.low, bar.high, bar.close)):
                self._step(
                    market,
                    price,
                    bar.last_event_us,
                    bar.received_us,
                    now_us,
                    f".{part}",
                    batch.simulated,
                    fired,
                )
        for reference in batch.references:
            market = markets.get((reference.symbol, venue))
            if market is not None and reference.updated_us > market.at_us:
                self._step(
                    market,
                    reference.price,
                    reference.updated_us,
                    reference.received_us,
                    now_us,
                    "",
                    batch.simulated,
                    fired,
                )
        return fired

    def on_price(self, update: PriceUpdate, now_us: int) -> list[Firing]:
        """A consolidated price with the extremes since the one before. A stale or fallback one moves nothing."""
        market = self._registry.markets.get((update.symbol, update.source))
        if market is None or update.source != CONSOLIDATED:
            return []
        if update.epoch < market.epoch or (update.epoch == market.epoch and update.seq <= market.sequence):
            return []
        hole = bool(market.at_us) and (update.epoch != market.epoch or update.seq != market.sequence + 1)
        low, high = (update.price, update.price) if hole else (update.low, update.high)
        market.epoch, market.sequence = update.epoch, update.seq
        if update.status in {"stale", "fallback"}:
            return []
        if hole:
            self._note_hole(market, update.event_us, update.price)
        fired: list[Firing] = []
        for part, price in enumerate(path(market.index.value, low, high, update.price)):
            self._step(
                market,
                price,
                update.event_us,
                update.received_us,
                now_us,
                f".{part}",
                update.simulated,
                fired,
            )
        return fired

    def on_bar_prices(self, candle: Candle, *, opening: bool = False) -> list[Firing]:
        """A closed bar in place of its trades (dry runs): its way through low and high, then its close and volume, then time.

        With `opening` only its opening price is taken. Times are the bar's own.
        """
        fired: list[Firing] = []
        market = self._registry.markets.get((candle.symbol, candle.source))
        at_us = candle.open_time * 1000
        if opening:
            if market is not None:
                self._step(market, candle.open, at_us, at_us, at_us, "", candle.simulated, fired)
            return fired
        if market is not None and not market.stays(at_us, candle.low, candle.high, candle.close):
            way = path(market.index.value, candle.low, candle.high, candle.close)
            for part, price in enumerate(way):
                self._step(market, price, at_us, at_us, at_us, f".{part}", candle.simulated, fired)
        if self._registry.has_bars:
            fired += self.on_candle(candle, next_open(candle.open_time, candle.interval) * 1000)
        if self._roster.has_timers:
            fired += self.on_time(next_open(candle.open_time, candle.interval) * 1000)
        return fired

    def _note_hole(self, market: Market, to_us: int, price: Decimal) -> None:
        hole = market.note_hole(to_us, price)
        if hole is not None:
            self._holes.append(hole)
            if to_us - hole.from_us > LONG_HOLE_US:
                market.index.reset(price)

    def _step(
        self, market: Market, price: Number, at_us: int, received_us: int, now_us: int, part: str, simulated: bool,
        fired: list[Firing],
    ) -> None:  # fmt: skip
        """One price of one market: thresholds, windows, trailing rules, spreads."""
        hits = market.index.move(price)
        market.at_us, market.received_us, market.changed = at_us, received_us, True
        if not hits and not market.has_extras:
            return

        def cause() -> Cause:  # most prices cause nothing
            name = f"{market.source}:{market.epoch}:{market.sequence or at_us}{part}"
            return Cause(at_us, now_us, name, market.symbol, market.source, simulated)

        for wire, threshold, edge in hits:
            self._roster.hit(wire, price, threshold, edge, cause(), fired)
        if market.has_extras:
            assert isinstance(price, Decimal)
            self._extras(market, price, cause, fired)

    def _extras(
        self, market: Market, price: Decimal, cause: Callable[[], Cause], fired: list[Firing]
    ) -> None:
        if market.waiting:
            waiting, market.waiting = market.waiting, []
            for wire in waiting:
                self._roster.anchor(wire, market, price)
        for window, indexes in tuple(market.changes.items()):
            above, below = market.windows[window].push(market.at_us, price)
            for direction, index in tuple(indexes):
                for wire, threshold, edge in index.move(above if direction == "up" else below):
                    self._roster.hit(wire, price, threshold, edge, cause(), fired)
        for book, direction in ((market.highs, "down"), (market.lows, "up")):
            for wire, trigger in book.move(price):
                attachment = wire.attachment
                self._roster.collect(
                    attachment.rule.enter(cause(), price, trigger, direction), attachment, fired
                )
                if attachment.rule.id in self._roster.attached:
                    self._roster.follow(wire, market, price)
        for metric, _, other in tuple(market.spreads):
            if other.price is not None:
                percent = float(abs(price - other.price) / (price + other.price) * 200)
                self._move(metric, percent, cause(), fired)

    # --- bars, indicators, signals, portfolios, listings -------------------------------------------------------------

    def on_candle(self, candle: Candle, now_us: int) -> list[Firing]:
        """A closed bar: closes and volumes. Corrections and repeats are ignored."""
        if not candle.closed or not self._is_newer(
            "candle", candle.symbol, candle.source, candle.interval, candle.open_time
        ):
            return []
        fired: list[Firing] = []
        series = (candle.symbol, candle.source, candle.interval)
        cause = Cause(
            candle.open_time * 1000, now_us, f"{candle.source}:{candle.interval}:{candle.open_time}", candle.symbol,
            candle.source, candle.simulated, data={"open_time": candle.open_time, "interval": candle.interval},
        )  # fmt: skip
        self._move(Metric("close", *series[:2], (candle.interval,)), candle.close, cause, fired)
        window = self._registry.volumes.get(series)
        if window is not None:
            wanted = self._registry.family("volume", *series)
            ratios = window.push(
                candle.open_time, candle.volume, tuple(int(metric.detail[1]) for metric in wanted)
            )
            for metric in wanted:
                ratio = ratios.get(int(metric.detail[1]))
                if ratio is not None:
                    # Each bar stands for itself: a second spike in a row is one again.
                    self._registry.indexes[metric].reset(0.0)
                    self._move(metric, ratio, cause, fired)
        return fired

    def seed_volumes(self, candles: Iterable[Candle]) -> None:
        """Past closed bars, oldest first, so that a volume rule need not wait for its window to fill."""
        for candle in candles:
            window = self._registry.volumes.get((candle.symbol, candle.source, candle.interval))
            if window is not None and candle.closed:
                window.push(candle.open_time, candle.volume, ())

    def empty_volumes(self) -> list[tuple[str, str, str]]:
        """(symbol, source, interval) of the volume windows that have no bar yet."""
        return [key for key, window in self._registry.volumes.items() if window.last_open < 0]

    def on_indicators(self, update: IndicatorUpdate, now_us: int) -> list[Firing]:
        """Indicator values of a closed or a forming bar."""
        on = "close" if update.closed else "live"
        metrics = self._registry.family("indicator", update.symbol, update.source, update.interval, on)
        if not metrics:
            return []
        if update.closed and not self._is_newer(
            "indicator", update.symbol, update.source, update.interval, update.open_time
        ):
            return []
        fired: list[Firing] = []
        name = (
            f"{update.source}:{update.interval}:{on}:{update.open_time}:{'' if update.closed else update.seq}"
        )
        cause = Cause(
            update.as_of_us, now_us, name, update.symbol, update.source, update.simulated,
            data={"open_time": update.open_time, "interval": update.interval},
        )  # fmt: skip
        for metric in metrics:
            value = indicator_value(update, metric)
            if value is not None:
                self._move(metric, value, cause, fired)
        return fired

    def on_signal(self, signal: Signal, now_us: int) -> list[Firing]:
        """A signal of the analytics; withdrawn ones fire nothing."""
        fired: list[Firing] = []
        cause = Cause(
            signal.at_us, now_us, f"signal:{signal.id}", signal.symbol, signal.source, signal.simulated,
            data={"signal": signal.kind, "status": signal.status, "open_time": signal.open_time, "interval": signal.interval},
        )  # fmt: skip
        for attachment in list(self._roster.signals.get((signal.kind, signal.symbol), {}).values()):
            leaf = attachment.views[0].leaf
            assert isinstance(leaf, SignalCondition)
            if (
                leaf.status == signal.status
                and leaf.interval in {None, signal.interval}
                and leaf.direction in {None, signal.direction}
                and source_of_leaf(leaf, attachment.rule.definition) == signal.source
            ):
                self._roster.collect(
                    attachment.rule.enter(cause, None, None, signal.direction), attachment, fired
                )
        return fired

    def on_portfolio(self, values: PortfolioValued, now_us: int) -> list[Firing]:
        """The value of a portfolio; what is unknown moves nothing."""
        fired: list[Firing] = []
        cause = Cause(
            values.at_ms * 1000, now_us, f"portfolio:{values.portfolio_id}:{values.snapshot_id}",
            data={"portfolio_id": values.portfolio_id, "base_currency": values.base_currency},
        )  # fmt: skip
        for metric in self._registry.family("portfolio", values.user_id, values.portfolio_id):
            value = {
                "value": values.value,
                "pnl_pct": values.unrealised_pnl_pct,
                "allocation_pct": values.allocation_pct.get(str(metric.detail[2])),
            }[str(metric.detail[1])]
            if value is not None:
                self._move(metric, value, cause, fired)
        return fired

    def portfolios(self) -> set[int]:
        """The portfolios that rules look at, to be watched."""
        return {int(family[2]) for family in self._registry.families("portfolio")}

    def on_listing(self, symbol: str, venue: str, now_us: int) -> list[Firing]:
        """A pair that appeared on a venue."""
        fired: list[Firing] = []
        base, _, quote = symbol.partition("-")
        cause = Cause(now_us, now_us, f"listing:{symbol}:{venue}", symbol, venue, data={"venue": venue})
        for attachment in list(self._roster.listings.values()):
            leaf = attachment.views[0].leaf
            assert isinstance(leaf, NewListing)
            if leaf.base in {None, base} and leaf.quote in {None, quote} and leaf.venue in {None, venue}:
                self._roster.collect(attachment.rule.enter(cause, None, None, "none"), attachment, fired)
        return fired

    # --- values from elsewhere, and time -----------------------------------------------------------------------------

    def foreign(self) -> list[Metric]:
        """Prices and indicators of other shards that composites read; to be polled and given to `feed`."""
        kinds = {"price", "indicator"}
        return [
            metric
            for metric in self._registry.indexes
            if metric.kind in kinds and not self._owns(metric.symbol)
        ]

    def feed(self, metric: Metric, value: Number, at_us: int, now_us: int) -> list[Firing]:
        """A polled value of another shard."""
        fired: list[Firing] = []
        self._move(
            metric, value, Cause(at_us, now_us, f"{metric}:{at_us}", metric.symbol, metric.source), fired
        )
        return fired

    def on_time(self, now_us: int) -> list[Firing]:
        """Once a second: what has held long enough, what expired, which feeds are quiet."""
        fired: list[Firing] = []
        self._roster.on_time(now_us, fired)
        for metric in self._registry.family("quiet"):
            market = self._registry.market(metric.symbol, metric.source)
            market.received_us = market.received_us or now_us
            cause = Cause(now_us, now_us, f"quiet:{market.received_us}", metric.symbol, metric.source)
            self._move(metric, max(0, now_us - market.received_us) / 1_000_000, cause, fired)
        return fired

    def _move(self, metric: Metric, value: Number, cause: Cause, fired: list[Firing]) -> None:
        index = self._registry.indexes.get(metric)
        if index is not None:
            for wire, threshold, edge in index.move(value):
                self._roster.hit(wire, value, threshold, edge, cause, fired)

    def _is_newer(self, kind: str, symbol: str, source: str, interval: str, open_ms: int) -> bool:
        """True once per bar: repeats and corrections of a bar are not evaluated again."""
        key = (kind, symbol, source, interval)
        if open_ms <= self._bars.get(key, -1):
            return False
        self._bars[key] = open_ms
        return True


def indicator_value(update: IndicatorUpdate, metric: Metric) -> float | None:
    """The output that a metric names, or its difference from the other output; None while undefined."""
    output, other = str(metric.detail[2]), str(metric.detail[3])
    value = update.close if output == "close" else update.values.get(output)
    if value is None or not other:
        return value
    second = update.close if other == "close" else update.values.get(other)
    return None if second is None else value - second
