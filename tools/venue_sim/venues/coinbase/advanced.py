"""The Advanced Trade dialect over WebSocket: channels, snapshots, one sequence for the whole connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from tools.venue_sim.market import bars
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.venues.coinbase import wire

if TYPE_CHECKING:
    from tools.venue_sim.venues.coinbase.site import CoinbaseSession, CoinbaseSite

CHANNELS: Final = ("market_trades", "ticker", "ticker_batch", "candles", "heartbeats", "level2", "status")
SNAPSHOT_TRADES: Final = 100
_SNAPSHOT_CANDLES: Final = 100
_BOOK_LEVELS: Final = 20


class Advanced:
    """What a session does once its first message was in this dialect."""

    def __init__(self, site: CoinbaseSite, session: CoinbaseSession) -> None:
        self._site = site
        self._session = session
        self.channels: dict[str, dict[str, Pair | None]] = {}
        self.sequence = 0
        self._beats = 0

    # -- control messages

    def on_message(self, request: dict[str, Any]) -> None:
        """`subscribe` and `unsubscribe`, one channel at a time."""
        kind, channel = request.get("type"), request.get("channel")
        if kind not in {"subscribe", "unsubscribe"}:
            self._error(f"unsupported message type: {kind}")
        elif channel not in CHANNELS:
            self._error(f"channel not supported: {channel}")
        elif kind == "subscribe":
            self._subscribe(str(channel), request.get("product_ids") or [])
        else:
            self._unsubscribe(str(channel), request.get("product_ids") or [])

    def _error(self, text: str) -> None:
        self._session.connection.send(orjson.dumps({"type": "error", "message": text}))

    def _subscribe(self, channel: str, products: list[str]) -> None:
        self._session.subscribed = True
        known = self.channels.setdefault(channel, {})
        if channel in {"heartbeats", "status"}:
            known[channel] = None
            self._answer()
            return
        added = []
        for name in products:
            pair = self._site.product(name)
            refused = self._site.faults.first_hit("subscribe_error", pair, channel) is not None
            if pair is None or refused:
                self._error(f"failure to subscribe: {name} is not a valid product_id")
                continue
            if pair.instrument.native not in known:
                known[pair.instrument.native] = pair
                self._site.listen(self, channel, pair)
                added.append(pair)
        self._answer()
        for pair in added:
            self._snapshot(channel, pair)

    def _unsubscribe(self, channel: str, products: list[str]) -> None:
        known = self.channels.get(channel, {})
        for name in products or list(known):
            pair = self._site.product(name)
            native = pair.instrument.native if pair is not None else name
            if native in known:
                removed = known.pop(native)
                if removed is not None:
                    self._site.unlisten(self, channel, removed)
        if not known:
            self.channels.pop(channel, None)
        self._answer()

    def _answer(self) -> None:
        state = {channel: sorted(products) for channel, products in self.channels.items()}
        self.send("subscriptions", orjson.dumps({"subscriptions": state}))
        self._session.connection.flush()

    def forget(self) -> None:
        """The client is gone."""
        for channel, products in self.channels.items():
            for pair in products.values():
                if pair is not None:
                    self._site.unlisten(self, channel, pair)

    # -- sending

    def send(self, channel: str, events: bytes, pair: Pair | None = None) -> None:
        """Push one message: `events` is the inside of the list. A sequence hole skips a number and the message."""
        site = self._site
        number = self.sequence
        self.sequence += 1
        if site.faults.other and site.faults.first_hit("sequence_hole", pair, channel) is not None:
            return
        stamp = wire.nanos_text(site.market.venue_us("coinbase") * 1000 + number % 1000)
        payload = (
            f'{{"channel":"{channel}","timestamp":"{stamp}","sequence_num":{number},"events":['.encode()
            + events
            + b"]}"
        )
        self._session.push(pair, channel, payload)

    def _snapshot(self, channel: str, pair: Pair) -> None:
        if channel == "market_trades":
            newest = pair.tape.latest(SNAPSHOT_TRADES)
            self.send(channel, wire.advanced_trades_event(pair, newest, "snapshot"), pair)
        elif channel in {"ticker", "ticker_batch"}:
            self.send_ticker(channel, pair, "snapshot")
        elif channel == "level2":
            self.send_book(pair, "snapshot")
        elif channel == "candles":
            self.send_candles(pair, "snapshot")
        self._session.connection.flush()

    def send_trades(self, pair: Pair, event: bytes) -> None:
        """A ready `market_trades` event."""
        self.send("market_trades", event, pair)

    def send_ticker(self, channel: str, pair: Pair, kind: str = "update") -> None:
        """One ticker of a product."""
        stats = self._site.stats(pair)
        newest = pair.last_trade()
        price = newest[1] if newest else stats.last
        row = wire.advanced_ticker(pair, stats, price, batch=channel == "ticker_batch")
        self.send(channel, orjson.dumps({"type": kind, "tickers": [row]}), pair)

    def send_candles(self, pair: Pair, kind: str) -> None:
        """The newest five-minute candles: about 100 as a snapshot, the running one as an update."""
        now_ms = self._site.market.venue_ms("coinbase")
        count = _SNAPSHOT_CANDLES if kind == "snapshot" else 1
        since = bars.bucket_start(now_ms, "5m") - (count - 1) * 5 * bars.MINUTE_MS
        rows = bars.fold(pair.tape.recent_minutes(since), "5m")[::-1]
        candles = [
            {
                "start": str(int(row[bars.OPEN_TIME]) // 1000),
                "high": wire.price_text(pair, int(row[bars.HIGH])),
                "low": wire.price_text(pair, int(row[bars.LOW])),
                "open": wire.price_text(pair, int(row[bars.OPEN])),
                "close": wire.price_text(pair, int(row[bars.CLOSE])),
                "volume": wire.size_text(pair, int(row[bars.VOLUME])),
                "product_id": pair.instrument.native,
            }
            for row in rows
        ]
        if candles:
            self.send("candles", orjson.dumps({"type": kind, "candles": candles}), pair)

    def send_book(self, pair: Pair, kind: str) -> None:
        """`l2_data`: twenty levels as a snapshot, the best ones as an update."""
        stamp = wire.micros_text(self._site.market.venue_us("coinbase"))
        levels = range(_BOOK_LEVELS if kind == "snapshot" else 1)
        updates = []
        for side, best, step in (("bid", pair.bid, -1), ("offer", pair.ask, 1)):
            for level in levels:
                size = int(pair.mean_size * (1 + level % 5)) or 1
                updates.append(
                    {
                        "side": side,
                        "event_time": stamp,
                        "price_level": wire.price_text(pair, max(1, best + step * level)),
                        "new_quantity": wire.size_text(pair, size),
                    }
                )
        event = {"type": kind, "product_id": pair.instrument.native, "updates": updates}
        self.send("l2_data", orjson.dumps(event), pair)

    def beat(self) -> None:
        """The heartbeat of this second, when it is subscribed."""
        if "heartbeats" not in self.channels:
            return
        self._beats += 1
        now_ns = self._site.market.venue_us("coinbase") * 1000
        text = wire.go_time_text(now_ns, time.monotonic() - self._session.connection.opened_at)
        self.send("heartbeats", orjson.dumps({"current_time": text, "heartbeat_counter": self._beats}))


def split_trades(trades: list[Trade], most: int) -> list[list[Trade]]:
    """Trades in pieces that fit one message each."""
    return [trades[start : start + most] for start in range(0, len(trades), most)]
