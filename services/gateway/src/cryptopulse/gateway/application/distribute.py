"""From the bus to the sockets: each message updates what reads are served from, and is put on the streams that it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.candles import Candle, CandleBatch
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.common.contracts.indicators import IndicatorBatch, Signal
from cryptopulse.common.contracts.portfolio import PortfolioChanged, PortfolioValueBatch, PortfolioValued
from cryptopulse.common.contracts.prices import STALE_AFTER_MS, PriceBatch, PriceUpdate
from cryptopulse.common.contracts.ticks import Conflated, TickBatch, Trade
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.telemetry import tracing
from cryptopulse.gateway.application.fan_out import Hub
from cryptopulse.gateway.application.feeds import Feeds
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.application.streams import Stream
from cryptopulse.gateway.application.subscribe import Subscriptions, price_epoch
from cryptopulse.gateway.domain import stream_data
from cryptopulse.gateway.domain.conflation import Ring
from cryptopulse.gateway.domain.frames import text_frame


class Distributor:
    """One method per topic. Nothing awaits: a message is on its way to every client when the method returns."""

    def __init__(
        self, hub: Hub, market: Market, feeds: Feeds, subscriptions: Subscriptions, clock: Clock
    ) -> None:
        self._hub = hub
        self._market = market
        self._feeds = feeds
        self._subscriptions = subscriptions
        self._clock = clock

    def prices(self, batch: PriceBatch) -> None:
        """Newest prices and forming 1m candles of a shard."""
        for update in batch.prices:
            if self._market.apply(update):
                self._ticker(update)
        for bar in batch.forming:
            self._forming(bar)

    def _ticker(self, update: PriceUpdate) -> None:
        find = self._hub.find
        symbol = update.symbol
        if update.source == CONSOLIDATED:
            stream = find(("ticker", symbol))
            if stream is not None:
                self._hub.publish(stream, update, offset=update.seq, epoch=price_epoch(update))
            base, _, quote = symbol.partition("-")
            if quote == "USD":
                self._cross(base)
        elif (stream := find(("ticker", symbol))) is not None:
            best = self._market.price(symbol)
            if best is not None and best.source == update.source:
                self._hub.publish(stream, best, offset=best.seq, epoch=price_epoch(best))
        pinned = find(("ticker", f"{symbol}@{update.source}"))
        if pinned is not None:
            self._hub.publish(pinned, update, offset=update.seq, epoch=price_epoch(update))

    def _cross(self, asset: str) -> None:
        for stream in self._subscriptions.crossed_by(asset):
            found = self._market.price(stream.key[1].partition("@")[0])
            if found is not None:
                self._hub.publish(stream, found, offset=found.seq, epoch=price_epoch(found))

    def candles(self, batch: CandleBatch) -> None:
        """Closed candles and corrections."""
        for bar, offset in zip(batch.candles, _numbered(batch.offsets, batch.candles), strict=True):
            key = (f"candles:{bar.interval}", f"{bar.symbol}@{bar.source}")
            self._final(self._hub.ring(key), (self._hub.find(key),), bar, batch.epoch, offset)

    def _final(
        self, ring: Ring, streams: Iterable[Stream | None], payload: Any, epoch: int, offset: int | None
    ) -> None:
        """Keep what its producer has numbered for those who resume, and put it on its streams."""
        if offset is not None and not ring.record(epoch, offset, self._clock.now_ms(), payload):
            return
        told = None if offset is None else f"{epoch:x}"
        for stream in streams:
            if stream is not None:
                self._hub.publish_final(stream, payload, offset=offset, epoch=told)

    def forming(self, bars: Iterable[Candle]) -> None:
        """Forming candles of the longer intervals, as polled."""
        for bar in bars:
            self._forming(bar)

    def _forming(self, bar: Candle) -> None:
        stream = self._hub.find((f"candles:{bar.interval}", f"{bar.symbol}@{bar.source}"))
        if stream is None:
            return
        known = stream.payload
        is_old = known is not None and (
            bar.open_time < known.open_time or (known.closed and bar.open_time == known.open_time)
        )
        if known != bar and not is_old:
            self._hub.publish_forming(stream, bar)

    def indicators(self, batch: IndicatorBatch) -> None:
        """Indicator values, forming or closed."""
        for update, offset in zip(batch.updates, _numbered(batch.offsets, batch.updates), strict=True):
            key = (f"indicators:{batch.interval}", f"{update.symbol}@{update.source}")
            streams = self._named(*key)
            if update.closed:
                self._final(self._hub.ring(key), streams, update, batch.epoch, offset)
            else:
                for stream in streams:
                    self._hub.publish_forming(stream, update)

    def _named(self, channel: str, subject: str) -> list[Stream]:
        """The stream of all outputs and those of single ones."""
        found = self._hub.find((channel, subject))
        streams = [] if found is None else [found]
        streams += self._hub.singles.get((channel, subject), ())
        return streams

    def signal(self, event: Signal) -> None:
        """A signal."""
        key = ("signals", event.symbol)
        self._final(self._hub.ring(key), (self._hub.find(key),), event, event.epoch, event.offset or None)

    def ticks(self, batch: TickBatch) -> None:
        """Trades, and the bars of those that an overload has conflated, for those who follow them."""
        rows: Sequence[Trade | Conflated] = batch.trades
        if batch.conflated:
            rows = [*rows, *batch.conflated]
        offsets = dict(batch.offsets)
        places: dict[str, tuple[Ring, tuple[Stream | None]]] = {}
        for symbol in self._hub.followed.intersection(row.symbol for row in rows):
            key = ("trades", f"{symbol}@{batch.venue}")
            places[symbol] = (self._hub.ring(key), (self._hub.find(key),))
        for row in rows if places else ():
            symbol = row.symbol
            if symbol not in places:
                continue
            offset = offsets.get(symbol)
            if offset is not None:
                offsets[symbol] = offset + 1
            self._final(*places[symbol], (batch.venue, row), batch.epoch, offset)

    def feed(self, status: FeedStatus) -> None:
        """The state of a venue."""
        if self._feeds.apply(status):
            stream = self._hub.find(("status", ""))
            if stream is not None:
                self._hub.publish(stream, self._feeds.public())

    def alert(self, event: AlertEvent) -> int:
        """An alert event to the sockets of its owner; how many."""
        stream = self._hub.find(("alerts", event.user_id))
        if stream is None:
            return 0
        with tracing.span("socket send", kind="producer", network_protocol_name="websocket"):
            body = stream_data.alert_event(event)
            now = self._clock.now_ms()
            stream.advance(body, now, None, None)
            if stream.ring is not None:
                stream.ring.record(1, stream.offset, now, body)
            frame = text_frame(stream_data.alert(body, replayed=False))
            count = 0
            for members in stream.members.values():
                for connection in tuple(members):
                    connection.say_frame(frame)
                    count += 1
        return count

    def valued_all(self, batch: PortfolioValueBatch) -> None:
        """Live values of several portfolios."""
        for value in batch.values:
            self.valued(value)

    def valued(self, value: PortfolioValued) -> None:
        """The live value of a portfolio, to its owner."""
        stream = self._hub.find((f"portfolio:{value.portfolio_id}", value.user_id))
        if stream is not None:
            epoch = f"{value.epoch:x}" if value.epoch else None
            self._hub.publish(stream, value, offset=value.seq or None, epoch=epoch)

    def changed(self, change: PortfolioChanged) -> None:
        """A portfolio's books changed: its listeners may read it again."""
        stream = self._hub.find((f"portfolio:{change.portfolio_id}", change.user_id))
        if stream is None:
            return
        body: dict[str, Any] = {"type": "portfolio_changed", "sid": stream.sid, "version": change.version}
        for members in stream.members.values():
            for connection in tuple(members):
                connection.say(stream_data.dumps(body | {"kind": change.kind, "assets": change.assets}))

    def market_overview(self, body: dict[str, Any]) -> None:
        """The movers of the market, as polled while someone listens."""
        stream = self._hub.find(("market", ""))
        if stream is not None and stream.payload != body:
            self._hub.publish(stream, body)

    def check_ages(self) -> None:
        """Tell the listeners of tickers that have fallen silent."""
        now = self._clock.now_ms()
        for stream in self._hub.streams():
            update = stream.payload
            if stream.key[0] != "ticker" or not isinstance(update, PriceUpdate) or not stream.has_members:
                continue
            since = update.received_us // 1_000
            if now - since > STALE_AFTER_MS:
                reason = "no_data" if self._feeds.is_live else "provider_disconnected"
                self._hub.mark_stale(stream, since, reason)


def _numbered(offsets: Sequence[int], items: Sequence[object]) -> Sequence[int | None]:
    """The producer's offsets; one of a release before they were sent leaves them out."""
    return offsets or [None] * len(items)
