"""One socket to a venue and its life: connect, subscribe, stay live, notice every kind of silence, come back (step 1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.feeds import ConnectionState, ConnectionStatus
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.pacing import Pace
from cryptopulse.ingestor.application.ports import Sockets, Venue, Wire
from cryptopulse.ingestor.domain.backoff import Backoff
from cryptopulse.ingestor.domain.output import ControlAnswer

TICK_SECONDS: Final = 0.25
HEALTHY_SECONDS: Final = 30.0
ACK_SECONDS: Final = 5.0
RECONCILE_SECONDS: Final = 60.0
RESUBSCRIBE_TIMES: Final = 3

_CONNECTS = counter(
    "cryptopulse_feed_connects_total", "Sockets opened or tried, by outcome.", ("venue", "outcome")
)
_HOLES = counter(
    "cryptopulse_sequence_gaps_total", "Messages missing by a connection's own sequence.", ("venue",)
)
log = get_logger(__name__)


class _EndedError(Exception):
    """The session is over; the text says why."""


@dataclass(slots=True)
class _Asked:
    """Control messages that wait for an answer."""

    ids: set[int]
    at: float


class Connection:
    """Serves some markets over one socket at a time. Implements `domain.output.Output` for its parser.

    `run` returns only when told to stop. Trades and quotes go to `ingest` as they come; the reader never waits.
    """

    def __init__(
        self,
        name: str,
        venue: Venue,
        natives: Sequence[str],
        names: Mapping[str, str],
        *,
        ingest: Ingest,
        sockets: Sockets,
        connects: Pace,
        clock: Clock,
        on_change: Callable[[Connection], None],
    ) -> None:
        self.name = name
        self.state: ConnectionState = "connecting"
        self.reason = "first attempt"
        self.since_us = clock.now_us()
        self.reconnects = 0
        self.last_data_us: int | None = None
        self.opened_at = clock.monotonic()
        self._opened_us = self.since_us
        self.shutdown_announced = False
        self.rejected: dict[str, str] = {}
        self._venue = venue
        self._natives = list(natives)
        self._names = names
        self._sockets = sockets
        self._connects = connects
        self._control = Pace(clock, venue.rules.control_per_second)
        self._clock = clock
        self._on_change = on_change
        self._stop = asyncio.Event()
        self._wire: Wire | None = None
        self._backoff = Backoff()
        self._request_id = 0
        self._asked: _Asked | None = None
        self._listed: frozenset[str] | None = None
        self._missing_times = 0
        self._is_data = False
        # straight to the use case: nothing between the parser and the guard
        self.trade = ingest.trade
        self.trades = ingest.trades
        self.quote = ingest.quote
        self.refused = ingest.refused
        self.on_heartbeat_id: Callable[[str, int], None] | None = None

    # --- what the parser tells beside the market ---------------------------------------------------------------

    def heartbeat(self, symbol: str | None, last_trade_id: int | None) -> None:
        """A sign of life that is no data."""
        self._is_data = False
        if symbol is not None and last_trade_id is not None and self.on_heartbeat_id is not None:
            self.on_heartbeat_id(symbol, last_trade_id)

    def sequence_hole(self, missing: int) -> None:
        """Counted only: trades are judged by their own ids."""
        _HOLES.labels(self._venue.name).inc(missing)

    def control(self, answer: ControlAnswer) -> None:
        """Acknowledgements, lists, refusals, announcements."""
        self._is_data = False
        if answer.kind == "shutdown":
            self.shutdown_announced = True
            log.info("venue announced a shutdown", venue=self._venue.name, connection=self.name)
        elif answer.kind == "subscribed":
            self._listed = answer.streams
            self._acknowledge(answer.request_id)
        elif answer.kind == "acknowledged":
            self._acknowledge(answer.request_id)
        else:
            self._acknowledge(answer.request_id)
            self.rejected[f"request {answer.request_id}"] = answer.detail
            if self._told_by_list and self._listed is None:
                self._listed = frozenset()
            log.warning(
                "subscription refused", venue=self._venue.name, connection=self.name, detail=answer.detail
            )

    def _acknowledge(self, request_id: int | None) -> None:
        if self._asked is not None and request_id is not None:
            self._asked.ids.discard(request_id)

    # --- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the markets served until `stop`."""
        while not self._stop.is_set():
            self._enter("connecting", self.reason)
            self._opened_us = self._clock.now_us()
            try:
                await self._connects.turn()
                await self._session()
                break
            except (UpstreamUnavailable, _EndedError) as error:
                reason = str(error)
                waits = getattr(error, "retry_after_seconds", None)
            self.reconnects += 1
            if (self.last_data_us or 0) - self._opened_us > HEALTHY_SECONDS * 1e6:
                self._backoff.reset()
            pause = max(self._backoff.next_seconds(), waits or 0.0)
            self._enter("backoff", reason)
            log.warning(
                "feed lost",
                venue=self._venue.name,
                connection=self.name,
                reason=reason,
                pause=round(pause, 2),
            )
            await self._stopped_within(pause)
        self._enter("stopped", "told to stop")

    async def stop(self) -> None:
        """Close the socket and end `run`."""
        if self.state == "live":
            self._enter("draining", "told to stop")
        self._stop.set()

    @property
    def natives(self) -> Sequence[str]:
        """The venue's names of the markets served here."""
        return self._natives

    @property
    def is_live(self) -> bool:
        """True when everything asked for is subscribed and data flowed since."""
        return self.state == "live" and self.last_data_us is not None and self.last_data_us >= self.since_us

    async def delivering(self, seconds: float) -> bool:
        """Wait at most so long until the connection is live with data."""
        for _ in range(int(seconds / TICK_SECONDS)):
            if self.is_live:
                break
            await asyncio.sleep(TICK_SECONDS)
        return self.is_live

    def status(self) -> ConnectionStatus:
        """What the feed's status says of this connection."""
        return ConnectionStatus(
            connection=self.name,
            state=self.state,
            reason=self.reason,
            since_us=self.since_us,
            symbols=len(self._natives),
            last_data_us=self.last_data_us,
            reconnects=self.reconnects,
        )

    async def add(self, natives: Sequence[str]) -> None:
        """Serve more markets; subscribed now when the socket is up, else with the next one."""
        fresh = [native for native in natives if native not in self._natives]
        self._natives += fresh
        if fresh and (wire := self._wire) is not None:
            await self._subscribe(wire, fresh)

    async def remove(self, natives: Sequence[str]) -> None:
        """Stop serving markets."""
        gone = [native for native in natives if native in self._natives]
        self._natives = [native for native in self._natives if native not in gone]
        if gone and (wire := self._wire) is not None:
            await self._send(wire, self._venue.unsubscribe(gone, self._request_id + 1))

    async def resubscribe(self, native: str) -> None:
        """Take one silent market's subscription anew, without touching the others."""
        if (wire := self._wire) is not None and native in self._natives:
            await self._send(wire, self._venue.unsubscribe([native], self._request_id + 1))
            await self._subscribe(wire, [native])

    async def _session(self) -> None:
        venue = self._venue
        parser = venue.parser(self._names, self)
        now_us, parse = self._clock.now_us, parser.parse

        def on_text(frame: bytes) -> None:
            self._is_data = True
            received = now_us()
            try:
                parse(frame, received)
            except Exception as error:
                self._is_data = False
                self.refused("malformed", frame, f"parser failed: {type(error).__name__}: {error}")
            if self._is_data:
                self.last_data_us = received

        def on_binary(size: int) -> None:
            self.refused("binary", b"", f"a binary frame of {size} bytes")

        self._listed, self._asked, self.shutdown_announced, self._missing_times = None, None, False, 0
        try:
            wire = await self._sockets.open(venue.url, on_text, on_binary, self._control.claim)
        except UpstreamUnavailable:
            _CONNECTS.labels(venue.name, "failed").inc()
            raise
        _CONNECTS.labels(venue.name, "opened").inc()
        self._wire = wire
        self.opened_at, self._opened_us = self._clock.monotonic(), self._clock.now_us()
        closing = asyncio.ensure_future(wire.closed())
        try:
            self._enter("subscribing", "socket open")
            await self._subscribe(wire, self._natives)
            await self._watch(wire, closing)
        finally:
            self._wire = None
            closing.cancel()
            await wire.close()

    async def _watch(self, wire: Wire, closing: asyncio.Future[str]) -> None:
        reconciled = self._clock.monotonic()
        while not self._stop.is_set():
            await self._stopped_within(TICK_SECONDS)
            if closing.done():
                raise _EndedError(closing.result())
            now = self._clock.monotonic()
            self._judge_silence(wire, now)
            await self._judge_subscription(wire, now)
            if now - reconciled > RECONCILE_SECONDS and self.state == "live":
                reconciled = now
                await self._ask_list(wire)

    def _judge_silence(self, wire: Wire, now: float) -> None:
        rules = self._venue.rules
        quiet = now - max(wire.last_frame, self.opened_at)
        if quiet > rules.frame_silence_seconds:
            raise _EndedError(f"no frame for {quiet:.0f} s")
        if self.state not in ("live", "degraded"):
            return
        data_us = max(self.last_data_us or 0, self._opened_us)
        dataless = (self._clock.now_us() - data_us) / 1e6
        if dataless > 3 * rules.data_silence_seconds:
            raise _EndedError(f"no data for {dataless:.0f} s")
        if dataless > rules.data_silence_seconds and self.state == "live":
            self._enter("degraded", f"no data for {dataless:.0f} s")
        elif self.state == "degraded" and self.last_data_us is not None and self.last_data_us > self.since_us:
            self._enter("live", "data flows again")

    async def _judge_subscription(self, wire: Wire, now: float) -> None:
        asked = self._asked
        wanted = {stream for native in self._natives for stream in self._venue.streams(native)}
        if asked is not None and not asked.ids and self._listed is None and not self._told_by_list:
            self._asked = asked = None
            await self._ask_list(wire)
            self._enter("live", "subscribed")
        elif self._listed is not None:
            missing = wanted - self._listed
            if not missing:
                self._asked = asked = None
                self._listed = None
                self._missing_times = 0
                self.rejected.clear()
                if self.state == "subscribing":
                    self._enter("live", "subscribed")
            elif asked is None or now - asked.at > ACK_SECONDS:
                await self._retry_missing(wire, missing)
                return
        if asked is not None and now - asked.at > ACK_SECONDS and self._listed is None:
            raise _EndedError("no answer to the subscription")

    async def _retry_missing(self, wire: Wire, missing: set[str]) -> None:
        self._missing_times += 1
        natives = [n for n in self._natives if missing.intersection(self._venue.streams(n))]
        if self._missing_times <= RESUBSCRIBE_TIMES:
            # one by one at last: a venue may refuse a whole list for one bad name in it
            groups = [natives] if self._missing_times == 1 else [[native] for native in natives]
            for group in groups:
                await self._subscribe(wire, group)
            return
        for native in natives:
            self.rejected[native] = "the venue does not list the subscription"
        log.warning("markets refused", venue=self._venue.name, connection=self.name, markets=natives[:20])
        self._natives = [native for native in self._natives if native not in natives]
        self._asked = self._listed = None
        self._enter("live", f"{len(natives)} markets refused")

    @property
    def _told_by_list(self) -> bool:
        """True where the venue answers every subscription with its full list by itself."""
        return self._venue.list_streams(0) is None

    async def _subscribe(self, wire: Wire, natives: Sequence[str]) -> None:
        await self._send(wire, self._venue.subscribe(natives, self._request_id + 1))

    async def _send(self, wire: Wire, messages: Sequence[bytes]) -> None:
        ids = set(range(self._request_id + 1, self._request_id + 1 + len(messages)))
        self._request_id += len(messages)
        self._listed = None
        self._asked = _Asked(ids if self._asked is None else ids | self._asked.ids, self._clock.monotonic())
        for message in messages:
            await self._control.turn()
            wire.send(message)
        if self._asked is not None:
            self._asked.at = self._clock.monotonic()

    async def _ask_list(self, wire: Wire) -> None:
        self._request_id += 1
        message = self._venue.list_streams(self._request_id)
        if message is not None:
            await self._control.turn()
            self._asked = _Asked({self._request_id}, self._clock.monotonic())
            wire.send(message)

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    def _enter(self, state: ConnectionState, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason, self.since_us = state, reason, self._clock.now_us()
        self._on_change(self)
