"""Coinbase on one port: both WebSocket dialects (told apart by the first message) and both REST interfaces (by path)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import DayStats, Pair, Quote
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net import frames
from tools.venue_sim.net.messages import Request, Response, Session
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.coinbase import wire
from tools.venue_sim.venues.coinbase.advanced import Advanced, split_trades
from tools.venue_sim.venues.coinbase.exchange import Exchange
from tools.venue_sim.venues.coinbase.rest import CoinbaseRest
from tools.venue_sim.venues.site import VenueSession, VenueSite

VENUE: Final = "coinbase"
_BATCH_SECONDS: Final = 5.0
_MOST_TRADES_A_MESSAGE: Final = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CoinbaseOptions:
    """Limits and times of the venue; the defaults are the documented ones."""

    subscribe_seconds: float = 5.0
    idle_seconds: float = 75.0
    batch_seconds: float = 0.05
    messages_per_second: int = 8
    requests_per_second: float = 10.0
    burst: int = 15
    lifetime_seconds: float = 86_400.0


class CoinbaseSession(VenueSession):
    """One client; its dialect is decided by its first message."""

    def __init__(self, site: CoinbaseSite, connection: WsConnection) -> None:
        super().__init__(connection, site.options.messages_per_second)
        self._site = site
        self.dialect: Advanced | Exchange | None = None
        self.sent_at = connection.opened_at

    def on_text(self, data: bytes) -> None:
        """A control message."""
        if not self.counted():
            return
        try:
            request: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            self.connection.send(b'{"type":"error","message":"Malformed JSON"}')
            return
        if self.dialect is None:
            exchange = "channels" in request or "channel" not in request
            self.dialect = Exchange(self._site, self) if exchange else Advanced(self._site, self)
        self.dialect.on_message(request)

    def push(self, pair: Pair | None, channel: str, payload: bytes) -> None:
        """Queue one message, after the faults; the site flushes."""
        site = self._site
        self.sent_at = time.monotonic()
        site.messages_sent += 1
        if site.faults.frame_faults:
            self.connection.out.append(site.faults.frame(pair, channel, payload))
        else:
            self.connection.out.append(frames.text_frame(payload))

    def on_close(self) -> None:
        """The client is gone."""
        if self.dialect is not None:
            self.dialect.forget()
        self._site.sessions.discard(self)


class CoinbaseSite(VenueSite):
    """The venue. Who listens to what is kept by (channel, pair), so that a trade is encoded once."""

    name = VENUE
    trade_channel = "matches"

    def __init__(self, market: Market, faults: Faults, options: CoinbaseOptions | None = None) -> None:
        super().__init__(market, faults)
        self.options = options or CoinbaseOptions()
        self._rest = CoinbaseRest(market, self.options.requests_per_second, self.options.burst)
        self._advanced: dict[tuple[str, Pair], list[Advanced]] = {}
        self._exchange: dict[tuple[str, Pair], list[Exchange]] = {}
        self._waiting: dict[Pair, list[Trade]] = {}
        self._batch_at = self._beat_at = self._slow_at = 0.0
        self._since_slow: dict[Pair, Trade] = {}
        self._stats: dict[Pair, tuple[float, DayStats]] = {}

    # -- REST and handshake

    async def rest(self, request: Request) -> Response:
        """Advanced Trade under `/api/v3/brokerage`, Exchange at the root."""
        return await self._rest.answer(request)

    def websocket(self, _: Request, connection: WsConnection, /) -> Session | Response:
        """Any path is taken: both feeds live at the root of their hosts."""
        refused = self.faults.first_hit("refuse")
        if refused is not None:
            return Response(int(refused.params.get("status", 503)), b"", content_type="text/html")
        session = CoinbaseSession(self, connection)
        self.sessions.add(session)
        return session

    # -- products and listeners

    def product(self, name: str) -> Pair | None:
        """A product; the -USDC twin of a -USD product stands for that one."""
        found = self.market.native(VENUE, name)
        if found is None and name.endswith("-USDC"):
            return self.market.native(VENUE, name[:-1])
        return found

    def exact_product(self, name: str) -> Pair | None:
        """A product under its own name."""
        return self.market.native(VENUE, name)

    def listen(self, dialect: Advanced | Exchange, channel: str, pair: Pair) -> None:
        """Send a pair's messages of a channel to a session from now on."""
        if isinstance(dialect, Advanced):
            self._advanced.setdefault((channel, pair), []).append(dialect)
        else:
            self._exchange.setdefault((channel, pair), []).append(dialect)
        self._count(channel, pair, 1)

    def unlisten(self, dialect: Advanced | Exchange, channel: str, pair: Pair) -> None:
        """Stop that."""
        if isinstance(dialect, Advanced):
            _remove(self._advanced, (channel, pair), dialect)
        else:
            _remove(self._exchange, (channel, pair), dialect)
        self._count(channel, pair, -1)

    @staticmethod
    def _count(channel: str, pair: Pair, change: int) -> None:
        if channel.startswith("level2"):
            pair.wants_quotes += change
        else:
            pair.wants_trades += change

    def stats(self, pair: Pair) -> DayStats:
        """The rolling 24 hours, at most a second old."""
        now = time.monotonic()
        known = self._stats.get(pair)
        if known is None or now - known[0] > 1.0:
            known = self._stats[pair] = (now, pair.day_stats(self.market.venue_ms(VENUE)))
        return known[1]

    # -- live data

    def publish_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Exchange gets its matches at once, Advanced Trade in batches, as on the venue."""
        recorded = (pair.instrument.native, "matches") in self.recorded
        if self.faults.stream_faults and (not recorded or ("market_trades", pair) in self._advanced):
            trades = self.faults.stream(pair, "trade", trades, lambda late: self.send_trades(pair, late))
        if trades:
            self.send_trades(pair, trades)

    def send_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Matches now, batches later."""
        self._since_slow[pair] = trades[-1]
        waiting = self._waiting.get(pair)
        if waiting is None:
            self._waiting[pair] = list(trades)
        else:
            waiting += trades
        native = pair.instrument.native
        matches = self._exchange.get(("matches", pair))
        if matches and (native, "matches") not in self.recorded:
            for trade in trades:
                payload = wire.match_payload(pair, trade)
                for dialect in matches:
                    dialect.send_payload("matches", pair, payload)
        if (native, "ticker") not in self.recorded:
            for dialect in self._exchange.get(("ticker", pair), ()):
                dialect.send_ticker("ticker", pair, trades[-1])

    def publish_quotes(self, quotes: list[Quote]) -> None:
        """Only the books move with quotes."""
        for pair in {quote[0]: None for quote in quotes}:
            for dialect in self._advanced.get(("level2", pair), ()):
                dialect.send_book(pair, "update")
            listeners = self._exchange.get(("level2_batch", pair))
            if listeners:
                payload = orjson.dumps(
                    {
                        "type": "l2update",
                        "product_id": pair.instrument.native,
                        "changes": [
                            ["buy", wire.price_text(pair, pair.bid), wire.size_text(pair, pair.bid_size)],
                            ["sell", wire.price_text(pair, pair.ask), wire.size_text(pair, pair.ask_size)],
                        ],
                        "time": wire.micros_text(self.market.venue_us(VENUE)),
                    }
                )
                for one in listeners:
                    one.send_payload("level2_batch", pair, payload)

    def deliver_recorded(self, pair: Pair, channel: str, payload: bytes) -> None:
        """A recorded Exchange message; Advanced Trade's are made anew, for their sequence is the connection's."""
        for dialect in self._exchange.get((channel, pair), ()):
            dialect.send_payload(channel, pair, payload)

    def flush(self) -> None:
        """Write what was pushed; Advanced Trade's batches when they are due."""
        now = time.monotonic()
        if now >= self._batch_at:
            self._batch_at = now + self.options.batch_seconds
            waiting, self._waiting = self._waiting, {}
            for pair, trades in waiting.items():
                self._send_batch(pair, trades)
        super().flush()

    def _send_batch(self, pair: Pair, trades: list[Trade]) -> None:
        listeners = self._advanced.get(("market_trades", pair))
        if listeners:
            for piece in split_trades(trades, _MOST_TRADES_A_MESSAGE):
                event = wire.advanced_trades_event(pair, piece, "update")
                for dialect in listeners:
                    dialect.send_trades(pair, event)
        for dialect in self._advanced.get(("ticker", pair), ()):
            dialect.send_ticker("ticker", pair)

    # -- periodic work

    def tick(self, now: float) -> None:
        """Heartbeats, candles, slow tickers, and who has not subscribed or lived too long."""
        for session in list(self.sessions):
            self._keep(session, now)
        if now >= self._beat_at:
            self._beat_at = now + 1.0
            self._beat()
        if now >= self._slow_at:
            self._slow_at = now + _BATCH_SECONDS
            self._send_slow_tickers()
        self.flush()

    def _beat(self) -> None:
        if self.faults.first_hit("heartbeat_loss") is None:
            for session in self.sessions:
                if session.dialect is not None:
                    session.dialect.beat()
        for (channel, pair), listeners in self._advanced.items():
            if channel == "candles":
                for dialect in listeners:
                    dialect.send_candles(pair, "update")

    def _send_slow_tickers(self) -> None:
        traded, self._since_slow = self._since_slow, {}
        for pair, trade in traded.items():
            for dialect in self._advanced.get(("ticker_batch", pair), ()):
                dialect.send_ticker("ticker_batch", pair)
            for other in self._exchange.get(("ticker_batch", pair), ()):
                other.send_ticker("ticker_batch", pair, trade)

    def _keep(self, session: CoinbaseSession, now: float) -> None:
        opened = session.connection.opened_at
        if not session.subscribed and now - opened > self.options.subscribe_seconds:
            session.connection.close(1008, "no subscribe within 5 seconds")
        elif now - session.sent_at > self.options.idle_seconds:
            session.connection.close(1000, "no updates")
        elif now - opened > self.options.lifetime_seconds:
            session.connection.close(1001, "going away")


def _remove(table: dict[tuple[str, Pair], list[T]], key: tuple[str, Pair], listener: T) -> None:
    table[key].remove(listener)
    if not table[key]:
        del table[key]
