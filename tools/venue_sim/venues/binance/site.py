"""Binance spot on one port: market streams over WebSocket, and `/api/v3` over REST."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market import bars
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair, Quote
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net import frames
from tools.venue_sim.net.messages import Request, Response, Session, json_response
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.binance import wire
from tools.venue_sim.venues.binance.rest import BinanceRest
from tools.venue_sim.venues.binance.session import BinanceSession
from tools.venue_sim.venues.site import VenueSite

MAX_STREAMS: Final = 1024
MAX_ATTEMPTS: Final = 300
ATTEMPT_WINDOW_SECONDS: Final = 300.0
HOT_KINDS: Final = ("trade", "aggTrade", "bookTicker")
SLOW_KINDS: Final = ("miniTicker", "ticker")

Build = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class BinanceOptions:
    """Limits and times of the venue; the defaults are the documented ones."""

    ping_seconds: float = 20.0
    pong_timeout_seconds: float = 60.0
    lifetime_seconds: float = 86_400.0
    messages_per_second: int = 5
    weight_per_minute: int = 6000
    ban_seconds: int = 120


@dataclass(slots=True)
class Stream:
    """One stream and who has it, by (combined, microseconds)."""

    name: str
    kind: str
    pair: Pair | None
    interval: str = ""
    subscribers: dict[tuple[bool, bool], list[BinanceSession]] = field(default_factory=dict)
    last_minute_id: int = -2
    open_bucket: int = 0


@dataclass(slots=True)
class PairStreams:
    """What hangs on a pair: its byte formats and its hot streams."""

    raw: wire.HotFormats
    combined: wire.HotFormats
    streams: dict[str, Stream] = field(default_factory=dict)


class BinanceSite(VenueSite):
    """The venue. Streams exist while somebody is subscribed to them."""

    name = "binance"

    def __init__(self, market: Market, faults: Faults, options: BinanceOptions | None = None) -> None:
        super().__init__(market, faults)
        self.options = options or BinanceOptions()
        self.streams: dict[str, Stream] = {}
        self._rest = BinanceRest(market, self.options.weight_per_minute, self.options.ban_seconds)
        self._attempts: deque[float] = deque()
        self._slow_at = 0.0
        self._kline_at = 0.0
        self._traded: set[Pair] = set()

    # -- REST and handshake

    async def rest(self, request: Request) -> Response:
        """`/api/v3/...`."""
        return await self._rest.answer(request)

    def websocket(self, request: Request, connection: WsConnection) -> Session | Response:
        """`/ws`, `/ws/<stream>[/<stream>]` and `/stream?streams=a/b`."""
        refused = self.faults.first_hit("refuse")
        if refused is not None:
            return Response(int(refused.params.get("status", 503)), b"", content_type="text/html")
        now = time.monotonic()
        self._attempts.append(now)
        while self._attempts[0] < now - ATTEMPT_WINDOW_SECONDS:
            self._attempts.popleft()
        if len(self._attempts) > MAX_ATTEMPTS:
            return json_response({"code": -1003, "msg": "Too many connection attempts."}, 429)
        path = request.path
        if path.rstrip("/") not in {"/ws", "/stream"} and not path.startswith("/ws/"):
            return Response(404, b"", content_type="text/html")
        combined = path.startswith("/stream")
        unit = {name.lower(): value for name, value in request.query.items()}.get("timeunit", "")
        session = BinanceSession(self, connection, combined=combined, micro=unit.upper() == "MICROSECOND")
        listed = parse_qs(request.target.partition("?")[2]).get("streams", [""])[-1]
        text = listed if combined else path[4:]
        names = [name for name in text.split("/") if name]
        if len(names) > MAX_STREAMS:
            return json_response({"code": 2, "msg": "Invalid request: too many streams"}, 400)
        self.sessions.add(session)
        for name in names:
            self.subscribe(session, name)
        return session

    # -- subscriptions

    def parse_stream(self, name: str) -> Stream | None:
        """The stream that a name stands for, or None when nothing is ever sent on it."""
        if name in {"!miniTicker@arr", "!ticker@arr"}:
            return Stream(name, "miniTicker@arr", None) if name.startswith("!mini") else None
        symbol, _, kind = name.partition("@")
        pair = self.market.native(self.name, symbol.upper()) if symbol == symbol.lower() else None
        if pair is None:
            return None
        if kind in HOT_KINDS or kind in SLOW_KINDS or (pair.instrument.native, kind) in self.recorded:
            return Stream(name, kind, pair)
        if kind.startswith("kline_") and kind[6:] in bars.INTERVALS_MS:
            return Stream(name, "kline", pair, kind[6:])
        return None

    def subscribe(self, session: BinanceSession, name: str) -> None:
        """Add a stream to a session; twice is once. Unknown names are taken and stay silent, as on the venue."""
        if name in session.streams:
            return
        found = self.streams.get(name)
        stream = found if found is not None else self.parse_stream(name)
        pair = stream.pair if stream is not None else None
        if self.faults.first_hit("subscribe_error", pair, "" if stream is None else stream.kind) is not None:
            return
        session.streams[name] = None
        if stream is None:
            return
        self.streams[name] = stream
        stream.subscribers.setdefault(session.variant, []).append(session)
        if pair is not None:
            self._of(pair).streams[stream.name] = stream
            self._count(pair, stream.kind, 1)

    def unsubscribe(self, session: BinanceSession, name: str) -> None:
        """Take a stream from a session."""
        if name not in session.streams:
            return
        del session.streams[name]
        stream = self.streams.get(name)
        if stream is None:
            return
        stream.subscribers[session.variant].remove(session)
        if not stream.subscribers[session.variant]:
            del stream.subscribers[session.variant]
        if stream.pair is not None:
            self._count(stream.pair, stream.kind, -1)
        if not stream.subscribers:
            del self.streams[name]
            if stream.pair is not None:
                del self._of(stream.pair).streams[name]

    @staticmethod
    def _count(pair: Pair, kind: str, change: int) -> None:
        if kind == "bookTicker":
            pair.wants_quotes += change
        else:
            pair.wants_trades += change

    @staticmethod
    def _of(pair: Pair) -> PairStreams:
        if pair.wire is None:
            raw = wire.hot_formats(pair)
            pair.wire = PairStreams(raw, raw.combined(pair.instrument.native))
        found: PairStreams = pair.wire
        return found

    def forget(self, session: BinanceSession) -> None:
        """A session is gone."""
        for name in list(session.streams):
            self.unsubscribe(session, name)
        self.sessions.discard(session)

    # -- live data

    def publish_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Send `trade` and `aggTrade` events."""
        self._traded.add(pair)
        if self.faults.stream_faults and (pair.instrument.native, "trade") not in self.recorded:
            trades = self.faults.stream(pair, "trade", trades, lambda late: self.send_trades(pair, late))
        self.send_trades(pair, trades)

    def send_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Encode and push; the same for every client of an encoding."""
        if not trades:
            return
        event_us = self.market.venue_us(self.name)
        native = pair.instrument.native
        lower = native.lower()
        streams = self._of(pair).streams
        stream = streams.get(f"{lower}@trade")
        if stream is not None and (native, "trade") not in self.recorded:
            self._send_hot(stream, trades, event_us, agg=False)
        stream = streams.get(f"{lower}@aggTrade")
        if stream is not None and (native, "aggTrade") not in self.recorded:
            self._send_hot(stream, trades, event_us, agg=True)

    def _send_hot(self, stream: Stream, trades: list[Trade], event_us: int, *, agg: bool) -> None:
        pair = stream.pair
        assert pair is not None
        encode = wire.agg_trade_payload if agg else wire.trade_payload
        formats: PairStreams = pair.wire
        frame_faults = self.faults.frame_faults
        for (combined, micro), sessions in stream.subscribers.items():
            chosen = formats.combined if combined else formats.raw
            form = chosen.agg_trade if agg else chosen.trade
            divisor = 1 if micro else 1000
            event = event_us // divisor
            payloads = [encode(pair, form, trade, event, divisor) for trade in trades]
            if frame_faults:
                self._push_faulty(pair, stream.kind, sessions, payloads)
                continue
            made = b"".join([frames.text_frame(payload) for payload in payloads])
            for session in sessions:
                session.connection.out.append(made)
            self.messages_sent += len(trades) * len(sessions)

    def _push_faulty(
        self, pair: Pair | None, channel: str, sessions: list[BinanceSession], payloads: list[bytes]
    ) -> None:
        for session in sessions:
            for payload in payloads:
                session.connection.out.append(self.faults.frame(pair, channel, payload))
        self.messages_sent += len(payloads) * len(sessions)

    def publish_quotes(self, quotes: list[Quote]) -> None:
        """Send `bookTicker` events."""
        for quote in quotes:
            pair = quote[0]
            formats = self._of(pair)
            stream = formats.streams.get(f"{pair.instrument.native.lower()}@bookTicker")
            if stream is None:
                continue
            if self.faults.stream_faults and not self.faults.stream(
                pair, "bookTicker", [quote], self.publish_quotes
            ):
                continue
            for (combined, _), sessions in stream.subscribers.items():
                form = formats.combined.book_ticker if combined else formats.raw.book_ticker
                payload = wire.book_ticker_payload(quote, form)
                if self.faults.frame_faults:
                    self._push_faulty(pair, "bookTicker", sessions, [payload])
                    continue
                made = frames.text_frame(payload)
                for session in sessions:
                    session.connection.out.append(made)
                self.messages_sent += len(sessions)

    def push(self, stream: Stream, build: Build) -> None:
        """Send a slow event: `build(divisor)` makes its value for milliseconds (1000) or microseconds (1)."""
        builds = [build]
        if self.faults.stream_faults and stream.pair is not None:
            builds = self.faults.stream(
                stream.pair, stream.kind, builds, lambda late: self._send_built(stream, late)
            )
        self._send_built(stream, builds)

    def _send_built(self, stream: Stream, builds: list[Build]) -> None:
        for build in builds:
            for (combined, micro), sessions in stream.subscribers.items():
                payload = orjson.dumps(build(1 if micro else 1000))
                if combined:
                    payload = wire.envelope(stream.name, payload)
                self._push_faulty(stream.pair, stream.kind, sessions, [payload])

    def deliver_recorded(self, pair: Pair, channel: str, payload: bytes) -> None:
        """A recorded event, raw or in the combined envelope."""
        stream = self.streams.get(f"{pair.instrument.native.lower()}@{channel}")
        if stream is None:
            return
        for (combined, _), sessions in stream.subscribers.items():
            chosen = wire.envelope(stream.name, payload) if combined else payload
            self._push_faulty(pair, channel, sessions, [chosen])

    # -- periodic work

    def tick(self, now: float) -> None:
        """Pings, the life span of connections, one-second tickers, two-second klines."""
        for session in list(self.sessions):
            session.keep_alive(now, self.options, silent=bool(self.faults.first_hit("no_ping")))
        if now >= self._slow_at:
            self._slow_at = now + 1.0
            self._send_tickers()
        if now >= self._kline_at:
            self._kline_at = now + 2.0
            self._send_klines(every=True)
        else:
            self._send_klines(every=False)
        self.flush()

    def _send_tickers(self) -> None:
        event_us = self.market.venue_us(self.name)
        traded, self._traded = self._traded, set()
        for stream in list(self.streams.values()):
            pair = stream.pair
            if stream.kind == "miniTicker@arr":
                self._send_all_mini(stream, event_us)
            elif pair is not None and (
                stream.kind == "ticker" or (stream.kind == "miniTicker" and pair in traded)
            ):
                self._send_ticker(stream, pair, event_us)

    def _send_all_mini(self, stream: Stream, event_us: int) -> None:
        changed = [(pair, pair.day_stats(event_us // 1000)) for pair in self._changed()]
        if changed:
            self.push(
                stream,
                lambda divisor: [
                    wire.mini_ticker(pair, stats, event_us // divisor) for pair, stats in changed
                ],
            )

    def _send_ticker(self, stream: Stream, pair: Pair, event_us: int) -> None:
        stats = pair.day_stats(event_us // 1000)
        if stream.kind == "ticker":
            self.push(stream, lambda divisor: wire.ticker(pair, stats, event_us // divisor, divisor))
        else:
            self.push(stream, lambda divisor: wire.mini_ticker(pair, stats, event_us // divisor))

    def _changed(self) -> list[Pair]:
        changed = []
        for pair in self.market.of(self.name):
            seen = pair.tape.next_id
            if pair.announced_id != seen:
                pair.announced_id = seen
                changed.append(pair)
        return changed

    def _send_klines(self, *, every: bool) -> None:
        now_ms = self.market.venue_ms(self.name)
        for stream in list(self.streams.values()):
            if stream.kind != "kline" or stream.pair is None:
                continue
            bucket = bars.bucket_start(now_ms, stream.interval)
            if stream.open_bucket and bucket != stream.open_bucket:
                self._kline_later(stream, stream.open_bucket, closed=True)
                stream.open_bucket = bucket
            elif every or stream.interval == "1s":
                stream.open_bucket = bucket
                self._kline_later(stream, bucket, closed=False)

    def _kline_later(self, stream: Stream, bucket: int, *, closed: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._send_kline(stream, bucket, closed=closed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_kline(self, stream: Stream, bucket: int, *, closed: bool) -> None:
        pair = stream.pair
        assert pair is not None
        rows = await pair.tape.rows(stream.interval, bucket, bucket)
        if not len(rows):
            newest = pair.last_trade()
            if newest is None:
                return
            rows = wire.flat_row(bucket, newest[1])
        event_us = self.market.venue_us(self.name)
        self.push(
            stream,
            lambda d: wire.kline_event(
                pair, rows[0], stream.interval, event_us // d, 1000 // d, closed=closed
            ),
        )
        self.flush()

    def shutdown_event(self) -> None:
        """Announce `serverShutdown` to everybody, raw and combined."""
        event = self.market.venue_ms(self.name)
        data = b'{"e":"serverShutdown","E":%d}' % event
        for session in self.sessions:
            session.connection.send(wire.envelope("!serverShutdown", data) if session.combined else data)
