"""What every venue has in common: sessions, REST with faults, limits by address, and the calls of the engine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from tools.venue_sim.faults.engine import Faults, VenueFaults
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair, Quote
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Request, Response, Session
from tools.venue_sim.net.websocket import WsConnection

Handler = Callable[[Request], Awaitable[Response]]


class VenueSession:
    """One WebSocket client of a venue: its connection, and how many messages it has sent lately."""

    def __init__(self, connection: WsConnection, messages_per_second: int) -> None:
        self.connection = connection
        self.subscribed = False
        self._limit = messages_per_second
        self._recent: deque[float] = deque()

    def counted(self) -> bool:
        """Count a message from the client; False when it sends too many, and then it is disconnected."""
        now = time.monotonic()
        recent = self._recent
        recent.append(now)
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        if self._limit and len(recent) > self._limit:
            self.connection.close(1008, "Too many requests")
            return False
        return True

    def on_ping(self) -> None:
        """A ping counts as a message."""
        self.counted()

    def on_pong(self, _: bytes, /) -> None:
        """A pong counts as a message."""
        self.counted()


class VenueSite:
    """Base of the venues. The engine calls `publish_trades`, `publish_quotes`, `tick` and `flush`; all are synchronous."""

    name = ""
    trade_channel = "trade"

    def __init__(self, market: Market, faults: Faults) -> None:
        self.market = market
        self.faults: VenueFaults = faults.of(self.name)
        self.sessions: set[Any] = set()
        self.recorded: frozenset[tuple[str, str]] = (
            frozenset()
        )  # (native name, channel) that a recording brings
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = 0
        self.messages_sent = 0

    async def http(self, request: Request) -> Response:
        """Answer a REST call, after what the faults have to say about it."""
        self.requests += 1
        fault = self.faults.rest(request.path)
        if fault is not None:
            if fault.delay_seconds:
                await asyncio.sleep(fault.delay_seconds)
            if fault.answer is not None:
                return fault.answer
        response = await self.rest(request)
        return fault.spoil(response) if fault is not None else response

    async def rest(self, request: Request) -> Response:
        """The venue's own answer."""
        raise NotImplementedError

    def websocket(self, request: Request, connection: WsConnection, /) -> Session | Response:
        """Take a client in, or refuse it."""
        raise NotImplementedError

    def publish_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """New trades of a pair, oldest first."""
        raise NotImplementedError

    def publish_quotes(self, quotes: list[Quote]) -> None:
        """New best bids and asks."""
        raise NotImplementedError

    def publish_held(self, pair: Pair, items: list[Any]) -> None:
        """What an ended `reorder` still held: trades, or recorded messages of the pair's trade channel."""
        messages = [item for item in items if isinstance(item, bytes)]
        if messages:
            self._deliver_all(pair, self.trade_channel, messages)
        else:
            self.send_trades(pair, items)

    def send_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Send trades that the faults have let through."""
        raise NotImplementedError

    def publish_recorded(self, pair: Pair, channel: str, payload: bytes) -> None:
        """A recorded message, for who is subscribed to its channel."""
        payloads = [payload]
        if self.faults.stream_faults:
            named = "trade" if channel == self.trade_channel else channel
            payloads = self.faults.stream(
                pair, named, payloads, lambda late: self._deliver_all(pair, channel, late)
            )
        self._deliver_all(pair, channel, payloads)

    def _deliver_all(self, pair: Pair, channel: str, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.deliver_recorded(pair, channel, payload)

    def deliver_recorded(self, pair: Pair, channel: str, payload: bytes) -> None:
        """Push a recorded message to its subscribers."""

    def tick(self, now: float) -> None:
        """Called about every 100 ms with the monotonic clock: heartbeats, pings, slow streams."""

    def flush(self) -> None:
        """Write what was pushed to every client."""
        for session in self.sessions:
            session.connection.flush()

    async def stop(self) -> None:
        """End what runs beside the loop."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def connections(self) -> list[WsConnection]:
        """Open WebSocket connections."""
        return [session.connection for session in self.sessions]
