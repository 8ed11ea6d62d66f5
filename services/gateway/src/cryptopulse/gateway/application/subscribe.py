"""Subscriptions of the `cryptopulse.v1` stream: from what a client names to a stream with its newest value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote, urlencode

import orjson

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.values import CONSOLIDATED, REFERENCE
from cryptopulse.common.errors import CryptoPulseError, Refused, UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.application.connection import Connection
from cryptopulse.gateway.application.fan_out import Hub
from cryptopulse.gateway.application.feeds import Feeds
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.application.ports import Services
from cryptopulse.gateway.application.streams import Key, Stream
from cryptopulse.gateway.domain import price_body, stream_data
from cryptopulse.gateway.domain.channels import Channel, ChannelRefusedError, parse_channel
from cryptopulse.gateway.domain.conflation import Ring
from cryptopulse.gateway.domain.limits import socket_limits
from cryptopulse.gateway.domain.protocol import RETRY_AFTER_MS, UNAVAILABLE, ChannelRequest, Position
from cryptopulse.gateway.domain.scopes import permits
from cryptopulse.gateway.domain.seed import iso

log = get_logger(__name__)

REPLAY_PAGES: Final = 10
NAMES_MAX: Final = 5_000
DAY_MS: Final = 86_400_000
EVENTS_EPOCH: Final = "events"
"""Alerts resume from the store of events: their epoch never changes, their offset is the event's time in ms."""


class LiveState(Protocol):
    """The newest state of what moves between two messages."""

    async def forming(self, wanted: list[tuple[str, str, str]]) -> list[Candle]: ...
    async def indicators(self, symbol: str, source: str, interval: str) -> IndicatorUpdate | None: ...
    async def position(
        self, kind: Literal["candles", "indicators"], symbol: str, source: str, interval: str
    ) -> tuple[int, int] | None:
        """Epoch and offset of the newest closed bar that its producer has published."""
        ...


class TickFeed(Protocol):
    """Lets ticks of a symbol come while somebody listens."""

    async def follow(self, symbol: str) -> None: ...
    async def follow_indicators(self, interval: str) -> None: ...


def price_epoch(update: PriceUpdate) -> str:
    """The epoch of a ticker: the producer's; another source is another sequence."""
    return f"{update.epoch:x}" if update.source == CONSOLIDATED else f"{update.epoch:x}.{update.source}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stream that a client may join, and how he wants it."""

    channel: Channel
    stream: Stream
    subject: str
    request: ChannelRequest
    position: Position | None


class Subscriptions:
    """Opens streams for clients."""

    def __init__(
        self,
        hub: Hub,
        market: Market,
        feeds: Feeds,
        live: LiveState,
        services: Services,
        ticks: TickFeed,
    ) -> None:
        self._hub = hub
        self._market = market
        self._live = live
        self._services = services
        self._ticks = ticks
        self._feeds = feeds
        self._crossed: dict[str, set[Key]] = {}
        """Asset -> keys of the tickers that are a cross rate of it."""
        self._opening: dict[Key, asyncio.Task[Stream]] = {}

    async def prepare(
        self, connection: Connection, request: ChannelRequest
    ) -> tuple[list[Prepared], list[dict[str, Any]]]:
        """Look up what one entry of `channels` means: streams to join, and entries for `rejected`. Joins nothing."""
        try:
            channel = parse_channel(request.ch)
            self._permit(channel, connection.identity)
        except ChannelRefusedError as error:
            return [], [{"ch": request.ch, "code": error.code, "detail": error.detail}]
        names = list(dict.fromkeys(request.symbols)) if channel.takes_symbols else [""]
        if not names:
            return [], [{"ch": request.ch, "code": "symbols_missing", "detail": "name the symbols"}]
        prepared: list[Prepared] = []
        rejected: list[dict[str, Any]] = []
        for name in names[:NAMES_MAX]:
            found = await self._prepared(connection.identity, channel, name, request)
            if isinstance(found, list):
                prepared += found
            else:
                code, detail = found
                again = {"retry_after_ms": RETRY_AFTER_MS} if code == UNAVAILABLE else {}
                row = {"ch": channel.name, "symbol": name or None, "code": code, "detail": detail}
                rejected.append(row | again)
        return prepared, rejected

    async def _prepared(
        self, identity: Identity, channel: Channel, name: str, request: ChannelRequest
    ) -> list[Prepared] | tuple[str, str]:
        try:
            streams, subject = await self._streams(identity, channel, name, request.source)
        except ChannelRefusedError as error:
            return error.code, error.detail
        except Refused as error:
            return error.code.replace("-", "_"), error.detail
        except CryptoPulseError:
            return UNAVAILABLE, "this cannot be served at the moment: try again"
        resume = request.resume
        named = resume.get(name) or resume.get(subject) or resume.get(channel.name)
        if len(streams) > 1:
            named = None  # which of the venues is meant is not said
        return [
            Prepared(channel, stream, subject, request, request.resume.get(stream.key[1]) or named)
            for stream in streams
        ]

    def join(self, connection: Connection, prepared: Prepared) -> tuple[dict[str, Any], list[bytes]]:
        """Join a stream. The entry for `subscribed` (or, over the limit, for `rejected`) and the messages to send after the ack.

        Nothing awaits between joining and these messages being written, so none is overtaken by a newer one.
        """
        channel, stream, request = prepared.channel, prepared.stream, prepared.request
        head = {"ch": channel.name, "symbol": prepared.subject or None}
        source = stream.key[1].partition("@")[2]
        if channel.takes_symbols and source:
            head["source"] = source
        limit = socket_limits(connection.identity.tier).subscriptions
        if len(connection.streams) >= limit and stream not in connection.streams:
            detail = f"a connection holds at most {limit} subscriptions"
            return {**head, "code": "subscription_limit", "detail": detail}, []
        if channel.kind == "alerts":
            stream.join(connection, 0)
            return {**head, "sid": stream.sid, "epoch": EVENTS_EPOCH, "offset": self._hub.now_ms()}, []
        entry, messages = self._hub.subscribe(
            connection, stream, every_ms=request.every_ms, snapshot=request.snapshot, resume=prepared.position
        )
        return {**head, **entry}, messages

    def close(self, connection: Connection, request: ChannelRequest) -> list[dict[str, Any]]:
        """Unsubscribe from one entry of `channels`; without symbols from all of that channel."""
        try:
            channel = parse_channel(request.ch)
        except ChannelRefusedError:
            return []
        wanted = {self._symbol(name) for name in request.symbols}
        closed = []
        for stream in tuple(connection.streams):
            name, _, subject = self._described(stream)
            if name == channel.name and (not wanted or subject in wanted):
                self._hub.unsubscribe(connection, stream)
                closed.append({"ch": name, "symbol": subject or None, "sid": stream.sid})
        return closed

    def listed(self, connection: Connection) -> list[dict[str, Any]]:
        """What a connection listens to."""
        rows = []
        for stream, every in connection.streams.items():
            name, source, subject = self._described(stream)
            rows.append({"ch": name, "symbol": subject or None, "source": source or None, "sid": stream.sid,
                         "every_ms": every, "epoch": stream.epoch, "offset": stream.offset})  # fmt: skip
        return rows

    def _described(self, stream: Stream) -> tuple[str, str, str]:
        name, subject = stream.key
        if parse_channel(name).is_private:
            return name, "", ""
        symbol, _, source = subject.partition("@")
        return name, source, symbol

    def _symbol(self, name: str) -> str:
        try:
            return self._market.resolve(name).symbol
        except Refused:
            return name

    def _permit(self, channel: Channel, identity: Identity) -> None:
        if not channel.is_private:
            return
        if identity.user_id is None:
            raise ChannelRefusedError(
                "unauthenticated", f"{channel.name} needs a credential: send an auth message"
            )
        scope = "alerts:read" if channel.kind == "alerts" else "portfolio:read"
        if not permits(identity, scope):
            raise ChannelRefusedError("forbidden", f"this credential does not hold the scope {scope}")

    async def _streams(
        self, identity: Identity, channel: Channel, name: str, source: str | None
    ) -> tuple[list[Stream], str]:
        """What a client means: one stream, but of trades one for each venue, whose sequences are their own."""
        if channel.kind != "trades":
            stream, subject = await self._stream(identity, channel, name, source)
            return [stream], subject
        resolved = self._market.resolve(name)
        symbol, venues = resolved.symbol, self._market.venues(resolved)
        if not venues:
            raise ChannelRefusedError("not_traded", f"no venue trades {symbol}: name a traded pair")
        if source is not None:
            if source not in venues:
                raise ChannelRefusedError("unknown_source", f"{symbol} trades on {', '.join(sorted(venues))}")
            venues = {source}
        await self._ticks.follow(symbol)
        return [self._trades(symbol, venue) for venue in sorted(venues)], symbol

    def _trades(self, symbol: str, venue: str) -> Stream:
        key = ("trades", f"{symbol}@{venue}")
        return self._hub.stream(key, stream_data.trade, conflated=False, ring=self._hub.ring(key))

    async def _stream(
        self, identity: Identity, channel: Channel, name: str, source: str | None
    ) -> tuple[Stream, str]:
        if channel.kind == "alerts":
            return self.alerts_of(identity), ""
        if channel.kind == "portfolio":
            return await self._portfolio(identity, channel), ""
        if not channel.takes_symbols:
            encode: Callable[[Any], bytes] = orjson.dumps
            stream = self._hub.stream((channel.name, ""), encode, conflated=True)
            if channel.kind == "status" and stream.payload is None and (known := self._feeds.public()):
                self._hub.publish(stream, known)
            return stream, ""
        resolved = self._market.resolve(name)
        symbol = resolved.symbol
        if source is not None and source not in {CONSOLIDATED, REFERENCE, *self._market.venues(resolved)}:
            raise ChannelRefusedError("unknown_source", f"nobody by this name prices {symbol}")
        if channel.kind == "ticker":
            return self.ticker(symbol, source), symbol
        if channel.kind == "signals":
            ring = self._hub.ring(("signals", symbol))
            return self._hub.stream(
                ("signals", symbol), stream_data.signal, conflated=False, ring=ring
            ), symbol
        subject = f"{symbol}@{source or self._default_source(symbol)}"
        opened = self._candles if channel.kind == "candles" else self._indicators
        return await self._shared((channel.name, subject), lambda: opened(channel, subject)), symbol

    async def _shared(self, key: Key, opened: Callable[[], Coroutine[Any, Any, Stream]]) -> Stream:
        """One look at the store for all who ask for a stream at once: a crowd that comes back together must not overrun it."""
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(opened())
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        return await asyncio.shield(task)

    def _default_source(self, symbol: str) -> str:
        found = self._market.price(symbol)
        return CONSOLIDATED if found is None else found.source

    def ticker(self, symbol: str, source: str | None) -> Stream:
        """The ticker stream of a symbol, at the newest price that is known."""
        subject = f"{symbol}@{source}" if source is not None else symbol
        stream = self._hub.stream(("ticker", subject), price_body.ticker, conflated=True)
        if not stream.has_members:
            found = self._market.price(symbol, source)
            if found is not None:
                self._hub.publish(stream, found, offset=found.seq, epoch=price_epoch(found))
            if source in {None, CONSOLIDATED} and not self._market.sources(symbol):
                for asset in symbol.split("-"):
                    self._crossed.setdefault(asset, set()).add(stream.key)
        return stream

    def crossed_by(self, asset: str) -> list[Stream]:
        """Tickers with listeners that are a cross rate of an asset; those that are gone are forgotten."""
        keys = self._crossed.get(asset)
        if keys is None:
            return []
        streams = {key: self._hub.find(key) for key in keys}
        keys -= {key for key, stream in streams.items() if stream is None}
        if not keys:
            del self._crossed[asset]
        return [stream for stream in streams.values() if stream is not None and stream.has_members]

    async def _candles(self, channel: Channel, subject: str) -> Stream:
        key = (channel.name, subject)
        ring = await self._ring(key, "candles", subject, channel.interval)
        stream = self._hub.stream(key, stream_data.candle, conflated=False, ring=ring)
        if not stream.has_members:
            symbol, _, source = subject.partition("@")
            for bar in await self._live.forming([(symbol, source, channel.interval)]):
                self._form(stream, bar)
        return stream

    async def _ring(
        self, key: Key, kind: Literal["candles", "indicators"], subject: str, interval: str
    ) -> Ring:
        """What a series resumes from; where it stands is asked for when nothing of it was heard yet."""
        ring = self._hub.ring(key)
        if not ring.epoch:
            symbol, _, source = subject.partition("@")
            position = await self._live.position(kind, symbol, source, interval)
            if position is not None:
                self._hub.stand_at(key, *position)
        return self._hub.ring(key)

    async def _indicators(self, channel: Channel, subject: str) -> Stream:
        await self._ticks.follow_indicators(channel.interval)
        name = channel.indicator
        encode = (
            stream_data.indicators if not name else (lambda update: stream_data.one_indicator(update, name))
        )
        base = (f"indicators:{channel.interval}", subject)
        ring = await self._ring(base, "indicators", subject, channel.interval)
        stream = self._hub.stream((channel.name, subject), encode, conflated=True, ring=ring)
        if not stream.has_members:
            symbol, _, source = subject.partition("@")
            found = await self._live.indicators(symbol, source, channel.interval)
            if found is not None:
                self._form(stream, found)
        return stream

    def _form(self, stream: Stream, bar: Candle | IndicatorUpdate) -> None:
        """What is newest is what a joining client sees first: the newest message may be the correction of an older bar."""
        if stream.payload is None or bar.open_time > stream.payload.open_time:
            self._hub.publish_forming(stream, bar)

    async def _portfolio(self, identity: Identity, channel: Channel) -> Stream:
        answer = await self._services.call(
            "portfolio", "GET", f"/portfolios/{channel.portfolio_id}", identity=identity
        )
        if answer.status != 200:
            raise ChannelRefusedError("not_found", "there is no such portfolio")
        await self.watch([channel.portfolio_id])
        key = (channel.name, str(identity.user_id))
        return self._hub.stream(key, stream_data.portfolio, conflated=True)

    async def watch(self, portfolio_ids: list[int], ttl_seconds: int = 60) -> None:
        """Have live values of portfolios computed for a while; whose they are was checked when they were subscribed to."""
        body = orjson.dumps({"portfolio_ids": portfolio_ids, "ttl_seconds": ttl_seconds})
        answer = await self._services.call(
            "portfolio",
            "PUT",
            "/watch",
            identity=Identity(None, kind="service"),
            content=body,
            headers={"content-type": "application/json"},
        )
        if answer.status >= 300:
            raise UpstreamUnavailable(f"portfolios are not watched ({answer.status})")

    async def replay(self, connection: Connection, prepared: Prepared, joined_at: int) -> list[bytes]:
        """The alerts that a client missed, from the store of events, and whether that was all of them.

        `joined_at` is the stream's offset when the connection joined: what was pushed since is not sent twice.
        """
        position = prepared.position
        if prepared.channel.kind != "alerts" or position is None:
            return []
        now = self._hub.now_ms()
        missed: list[dict[str, Any]] | None = None
        if (
            position.epoch == EVENTS_EPOCH
            and now - position.offset <= DAY_MS
            and position.offset <= now + 60_000
        ):
            try:
                missed = await self._events_since(connection.identity, position.offset)
            except CryptoPulseError as error:
                log.warning("alert events could not be replayed", error=str(error))
        sid = prepared.stream.sid
        if missed is None:
            return [orjson.dumps({"type": "resumed", "sid": sid, "recovered": False})]
        ring = prepared.stream.ring
        pushed = {event["id"] for offset, _, event in ring.items if offset > joined_at} if ring else set()
        events = [stream_data.alert(event, replayed=True) for event in missed if event["id"] not in pushed]
        return [*events, orjson.dumps({"type": "resumed", "sid": sid, "recovered": True})]

    def alerts_of(self, identity: Identity) -> Stream:
        """The stream of a user's alerts; its messages are written as `alert`, never conflated."""
        key = ("alerts", str(identity.user_id))
        return self._hub.stream(key, orjson.dumps, conflated=False, ring=Ring())

    async def _events_since(self, identity: Identity, since_ms: int) -> list[dict[str, Any]] | None:
        """Events of the caller since a time, oldest first; None when there are more than can be replayed."""
        found: list[dict[str, Any]] = []
        query = {"since": iso(since_ms), "limit": "200"}
        for _ in range(REPLAY_PAGES):
            answer = await self._services.call(
                "alerts", "GET", "/alert-events", identity=identity, query=urlencode(query)
            )
            if answer.status != 200:
                return None
            page = orjson.loads(answer.body)
            found += page["data"]
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]
        return None

    async def ack(self, identity: Identity, event_id: str) -> bool:
        """Tell the alerts service that an event was seen."""
        answer = await self._services.call(
            "alerts", "POST", f"/alert-events/{quote(event_id, safe='')}/ack", identity=identity
        )
        return answer.status < 300
