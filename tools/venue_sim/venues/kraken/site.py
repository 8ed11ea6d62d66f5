"""Kraken on one port: WebSocket v1 at `/`, v2 at `/v2`, REST under `/0/public`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair, Quote
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net import frames
from tools.venue_sim.net.messages import Request, Response, Session
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.kraken import wire
from tools.venue_sim.venues.kraken.rest import KrakenRest
from tools.venue_sim.venues.site import VenueSession, VenueSite

VENUE: Final = "kraken"
CHANNELS: Final = ("trade", "ticker")
SNAPSHOT_TRADES: Final = 50


@dataclass(frozen=True, slots=True)
class KrakenOptions:
    """Limits of the venue."""

    requests_per_second: float = 1.0
    burst: int = 10
    lifetime_seconds: float = 86_400.0


class KrakenSession(VenueSession):
    """One client of either version; it knows its subscriptions by (channel, pair)."""

    def __init__(self, site: KrakenSite, connection: WsConnection, *, version: int) -> None:
        super().__init__(connection, 0)
        self._site = site
        self.version = version
        self.wanted: dict[tuple[str, Pair], int] = {}
        self.heartbeats = version == 1
        self.sent_at = connection.opened_at

    def push(self, pair: Pair | None, channel: str, payload: bytes) -> None:
        """Queue one message, after the faults."""
        site = self._site
        self.sent_at = time.monotonic()
        site.messages_sent += 1
        if site.faults.frame_faults:
            self.connection.out.append(site.faults.frame(pair, channel, payload))
        else:
            self.connection.out.append(frames.text_frame(payload))

    def on_text(self, data: bytes) -> None:
        """A control message of either version."""
        try:
            request: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            self.connection.send(b'{"errorMessage":"Malformed request","event":"error"}')
        elif self.version == 1:
            self._on_v1(request)
        else:
            self._on_v2(request)
        self.connection.flush()

    # -- version 1

    def _on_v1(self, request: dict[str, Any]) -> None:
        event = request.get("event")
        extra = {"reqid": request["reqid"]} if "reqid" in request else {}
        if event == "ping":
            self._say({"event": "pong", **extra})
        elif event in {"subscribe", "unsubscribe"}:
            name = (request.get("subscription") or {}).get("name")
            for native in request.get("pair") or []:
                self._v1_status(str(event), str(name), str(native), extra)
        else:
            self._say({"errorMessage": f"Unsupported event {event}", "event": "error"})

    def _v1_status(self, event: str, name: str, native: str, extra: dict[str, Any]) -> None:
        pair = self._site.market.native(VENUE, native)
        status: dict[str, Any] = {
            "event": "subscriptionStatus",
            "pair": native,
            "subscription": {"name": name},
            **extra,
        }
        refused = self._site.faults.first_hit("subscribe_error", pair, name) is not None
        if pair is None or name not in CHANNELS or refused:
            what = (
                f"Currency pair not supported {native}" if name in CHANNELS else "Subscription name invalid"
            )
            self._say({"errorMessage": what, **status, "status": "error"})
            return
        channel = self._site.channel_id(name, pair)
        if event == "unsubscribe":
            self._site.unlisten(self, name, pair)
            self._say({"channelID": channel, "channelName": name, **status, "status": "unsubscribed"})
            return
        self._site.listen(self, name, pair)
        self._say({"channelID": channel, "channelName": name, **status, "status": "subscribed"})
        if name == "ticker":
            self.send_ticker(pair)

    # -- version 2

    def _on_v2(self, request: dict[str, Any]) -> None:
        method, params = request.get("method"), request.get("params") or {}
        extra = {"req_id": request["req_id"]} if "req_id" in request else {}
        if method == "ping":
            self._say({"method": "pong", **extra})
            return
        channel = str(params.get("channel"))
        if method not in {"subscribe", "unsubscribe"} or (channel not in CHANNELS and channel != "heartbeat"):
            self._say({"error": "Unsupported method or channel", "method": method, "success": False, **extra})
            return
        self.heartbeats = True
        for name in params.get("symbol") or []:
            self._v2_status(str(method), channel, str(name), params, extra)

    def _v2_status(
        self, method: str, channel: str, name: str, params: dict[str, Any], extra: dict[str, Any]
    ) -> None:
        pair = self._site.market.find(VENUE, name.replace("/", "-"))
        pair = pair if pair is not None and pair.listed else None
        refused = self._site.faults.first_hit("subscribe_error", pair, channel) is not None
        if pair is None or refused:
            text = f"Currency pair not supported {name}"
            self._say({"error": text, "method": method, "success": False, "symbol": name, **extra})
            return
        stamp = wire.iso_text(self._site.market.venue_us(VENUE))
        snapshot = bool(params.get("snapshot", True))
        result = {"channel": channel, "snapshot": snapshot, "symbol": name}
        self._say(
            {
                "method": method,
                "result": result,
                "success": True,
                "time_in": stamp,
                "time_out": stamp,
                **extra,
            }
        )
        if method == "unsubscribe":
            self._site.unlisten(self, channel, pair)
            return
        self._site.listen(self, channel, pair)
        if channel == "ticker":
            self.send_ticker(pair, "snapshot")
        elif snapshot:
            self.send_trades(pair, pair.tape.latest(SNAPSHOT_TRADES), "snapshot")

    # -- sending

    def _say(self, value: dict[str, Any]) -> None:
        self.push(None, "control", orjson.dumps(value))

    def send_trades(self, pair: Pair, trades: list[Trade], kind: str = "update") -> None:
        """Trades, oldest first, in one message."""
        if self.version == 1:
            rows = [wire.v1_trade(pair, trade) for trade in trades]
            value: Any = [self._site.channel_id("trade", pair), rows, "trade", pair.instrument.native]
        else:
            data = [wire.v2_trade(pair, trade) for trade in trades]
            value = {"channel": "trade", "type": kind, "data": data}
        self.push(pair, "trade", orjson.dumps(value))

    def send_ticker(self, pair: Pair, kind: str = "update") -> None:
        """The ticker now."""
        stats = pair.day_stats(self._site.market.venue_ms(VENUE))
        if self.version == 1:
            body = wire.v1_ticker(pair, stats)
            value: Any = [self._site.channel_id("ticker", pair), body, "ticker", pair.instrument.native]
        else:
            value = {"channel": "ticker", "type": kind, "data": [wire.v2_ticker(pair, stats)]}
        self.push(pair, "ticker", orjson.dumps(value))

    def beat(self) -> None:
        """A heartbeat, when nothing else was sent for a second."""
        if self.heartbeats and time.monotonic() - self.sent_at >= 1.0:
            self._say({"event": "heartbeat"} if self.version == 1 else {"channel": "heartbeat"})

    def on_close(self) -> None:
        """The client is gone."""
        for channel, pair in list(self.wanted):
            self._site.unlisten(self, channel, pair)
        self._site.sessions.discard(self)


class KrakenSite(VenueSite):
    """The venue."""

    name = VENUE

    def __init__(self, market: Market, faults: Faults, options: KrakenOptions | None = None) -> None:
        super().__init__(market, faults)
        self.options = options or KrakenOptions()
        self._rest = KrakenRest(market, self.options.requests_per_second, self.options.burst)
        self._listeners: dict[tuple[str, Pair], list[KrakenSession]] = {}
        self._channels: dict[tuple[str, Pair], int] = {}
        self._beat_at = 0.0

    async def rest(self, request: Request) -> Response:
        """`/0/public/...`."""
        return await self._rest.answer(request)

    def websocket(self, request: Request, connection: WsConnection) -> Session | Response:
        """v1 at the root, v2 at `/v2`; the venue speaks first."""
        refused = self.faults.first_hit("refuse")
        if refused is not None:
            return Response(int(refused.params.get("status", 503)), b"", content_type="text/html")
        session = KrakenSession(self, connection, version=2 if request.path.rstrip("/") == "/v2" else 1)
        self.sessions.add(session)
        number = (self.market.now_us() * 7919 + connection.number) % (1 << 63)
        if session.version == 1:
            hello: Any = {
                "connectionID": number,
                "event": "systemStatus",
                "status": "online",
                "version": "1.9.6",
            }
        else:
            data = {"api_version": "v2", "connection_id": number, "system": "online", "version": "2.0.9"}
            hello = {"channel": "status", "data": [data], "type": "update"}
        session.push(None, "control", orjson.dumps(hello))
        return session

    def channel_id(self, name: str, pair: Pair) -> int:
        """A number for each channel of each pair, as v1 has it."""
        return self._channels.setdefault((name, pair), 336 + len(self._channels) * 48)

    def listen(self, session: KrakenSession, channel: str, pair: Pair) -> None:
        """Send a pair's messages of a channel to a session from now on."""
        if (channel, pair) not in session.wanted:
            session.wanted[channel, pair] = self.channel_id(channel, pair)
            self._listeners.setdefault((channel, pair), []).append(session)
            pair.wants_trades += 1

    def unlisten(self, session: KrakenSession, channel: str, pair: Pair) -> None:
        """Stop that."""
        if session.wanted.pop((channel, pair), None) is not None:
            self._listeners[channel, pair].remove(session)
            pair.wants_trades -= 1

    def publish_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Trades and, with them, tickers."""
        if self.faults.stream_faults and (pair.instrument.native, "trade") not in self.recorded:
            trades = self.faults.stream(pair, "trade", trades, lambda late: self.send_trades(pair, late))
        if trades:
            self.send_trades(pair, trades)

    def send_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """One message for all of them."""
        for channel in CHANNELS:
            recorded = (pair.instrument.native, channel) in self.recorded
            for session in self._listeners.get((channel, pair), ()):
                if recorded and session.version == 1:
                    continue
                if channel == "trade":
                    session.send_trades(pair, trades)
                else:
                    session.send_ticker(pair)

    def deliver_recorded(self, pair: Pair, channel: str, payload: bytes) -> None:
        """A recorded v1 message."""
        for session in self._listeners.get((channel, pair), ()):
            if session.version == 1:
                session.push(pair, channel, payload)

    def publish_quotes(self, quotes: list[Quote]) -> None:
        """Tickers follow trades only."""

    def tick(self, now: float) -> None:
        """Heartbeats and the life span of connections."""
        if now < self._beat_at:
            return
        self._beat_at = now + 0.5
        silent = self.faults.first_hit("heartbeat_loss") is not None
        for session in list(self.sessions):
            if not silent:
                session.beat()
            if now - session.connection.opened_at > self.options.lifetime_seconds:
                session.connection.close(1001, "going away")
        self.flush()
