"""One venue from end to end: lease, markets, sockets, repair, memory of ids, status. Everything that must go on, goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.feeds import ConnectionState, FeedStatus
from cryptopulse.common.contracts.topics import FEEDS
from cryptopulse.common.errors import BusUnavailable, StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.ingestor.application.backfill import Backfill
from cryptopulse.ingestor.application.catalogue import VenueCatalogue
from cryptopulse.ingestor.application.connections import Connections
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.ports import LastIds, Lease, Quota, Sockets, Venue
from cryptopulse.ingestor.application.repair import Repair
from cryptopulse.ingestor.application.silence import SilenceWatch
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.ordering import Gap

STATUS_SECONDS: Final = 2.0
TICK_SECONDS: Final = 0.1
STORE_SECONDS: Final = 1.0
_ORDER: Final[tuple[ConnectionState, ...]] = (
    "live", "degraded", "subscribing", "connecting", "backoff", "draining", "stopped",
)  # fmt: skip

_CONNECTED = gauge("cryptopulse_feed_connected", "1 while the feed is live.", ("venue",))
_CONNECTIONS = gauge(
    "cryptopulse_feed_connections",
    "Sockets of a venue by the state that they are in; all 0 while another replica serves.",
    ("venue", "state"),
)
_LAST_TICK = gauge(
    "cryptopulse_last_tick_timestamp_seconds", "When the last tick was handed to the bus.", ("venue",)
)
_OFFSET = gauge("cryptopulse_venue_clock_offset_seconds", "The venue's clock minus ours.", ("venue",))
_DUPLICATES = counter("cryptopulse_trades_duplicate_total", "Trades that came more than once.", ("venue",))
_HELD = gauge("cryptopulse_trades_held", "Trades that wait behind a gap.", ("venue",))
log = get_logger(__name__)


class VenueFeed:
    """Keeps one venue flowing while this replica holds its part's lease."""

    def __init__(
        self,
        venue: Venue,
        *,
        ingest: Ingest,
        catalogue: VenueCatalogue,
        sockets: Sockets,
        quota: Quota,
        last_ids: LastIds,
        lease: Lease,
        backfill: Backfill,
        bus: Publisher,
        clock: Clock,
        part: str,
        offset: ClockOffset,
        simulated: bool,
        on_followed: Callable[[str, list[str]], None],
    ) -> None:
        self.venue = venue
        self.paused = False
        self.active = False
        self.epoch = 0
        self._ingest = ingest
        self._catalogue = catalogue
        self._quota = quota
        self._last_ids = last_ids
        self._lease = lease
        self._backfill = backfill
        self._bus = bus
        self._clock = clock
        self._part = part
        self._offset = offset
        self._simulated = simulated
        self._on_followed = on_followed
        self._to_symbol: dict[str, str] = {}
        self._to_native: dict[str, str] = {}
        self._saved: dict[str, tuple[int, int]] = {}
        self._unconfirmed: tuple[dict[str, tuple[int, int]], list[int]] | None = None
        self._changed = asyncio.Event()
        self._hinted: dict[str, tuple[int, float]] = {}
        self._status_due = 0.0
        self._doubled = 0
        self._repair = Repair(venue, ingest, clock, self._to_native, on_loss=self._lost)
        self._silence = SilenceWatch(venue, ingest, clock, self._to_native, self._repair.begin)
        self._connections = Connections(
            venue,
            ingest,
            sockets,
            clock,
            self._to_symbol,
            on_change=self._changed.set,
            on_heartbeat_id=self._heard_id,
        )

    async def run(self, beat: Callable[[], None]) -> None:
        """Serve until cancelled."""
        name = self.venue.name
        helpers = [
            asyncio.create_task(self._keep_catalogue(), name=f"catalogue {name}"),
            asyncio.create_task(self._keep_watch(), name=f"silence {name}"),
            asyncio.create_task(self._keep_store(), name=f"lease and ids {name}"),
        ]
        try:
            while True:
                beat()
                if self.active and not self.paused:
                    self._repair.tick()
                    self._connections.tick()
                if self._changed.is_set() or self._clock.monotonic() >= self._status_due:
                    self._changed.clear()
                    self._status_due = self._clock.monotonic() + STATUS_SECONDS
                    await self._publish_status()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def pause(self) -> None:
        """Close the sockets; the ids are kept, so that `resume` repairs the pause."""
        if not self.paused:
            self.paused = True
            await self._connections.close()
            self._changed.set()

    async def resume(self) -> None:
        """Open the sockets again."""
        if self.paused:
            self.paused = False
            await self._follow()
            self._changed.set()

    async def drain(self) -> None:
        """Stop reading, send what waits, remember the ids, let another replica take over."""
        await self._connections.close()
        await self._repair.close()
        for publisher in self._ingest.publishers:
            await publisher.drained()
        self._unconfirmed = None
        await self._save_ids()
        if self.active:
            try:
                await self._lease.give_back(self.venue.name, self._part)
            except StoreUnavailable as error:
                log.warning("lease not given back", venue=self.venue.name, error=str(error))
        self.active = False
        await self._publish_status()

    def status(self) -> FeedStatus:
        """Everything that is known of the venue now."""
        connections = [connection.status() for connection in self._connections.all]
        refused = [f"{n}: {why}" for c in self._connections.all for n, why in sorted(c.rejected.items())[:10]]
        details = [self._catalogue.detail, f"refused: {'; '.join(refused)}" if refused else ""]
        return FeedStatus(
            venue=self.venue.name,
            at_us=self._clock.now_us(),
            part=self._part,
            epoch=self.epoch,
            active=self.active,
            state=self._state([c.state for c in connections]),
            connections=connections,
            gaps=list(self._repair.gaps),
            budgets=self._quota.status(self.venue.name),
            history=self._backfill.progress(self.venue.name),
            clock_offset_us=self._offset.us,
            last_tick_us=self._ingest.last_tick_us,
            paused=self.paused,
            simulated=self._simulated,
            detail=" | ".join(filter(None, details)),
        )

    @property
    def natives(self) -> Mapping[str, str]:
        """Symbol -> the venue's name of it, growing as markets are found."""
        return self._to_native

    @property
    def followed(self) -> list[str]:
        """The symbols whose trades this replica hands on now."""
        if not self.active or self.paused:
            return []
        return [instrument.symbol for instrument in self._catalogue.followed]

    def serves(self, symbol: str, interval: str) -> bool:
        """True when the venue lists the symbol and has candles of the interval."""
        return symbol in self._to_native and interval in self.venue.intervals

    @property
    def is_live(self) -> bool:
        """True while every socket is live, or another replica serves this part."""
        states = [connection.state for connection in self._connections.all]
        return not self.active or self.paused or (bool(states) and self._state(states) == "live")

    def _state(self, states: list[ConnectionState]) -> ConnectionState:
        if self.paused or not self.active:
            return "stopped"
        if not states:
            return "connecting"
        worst = max(states, key=_ORDER.index)
        return "degraded" if worst != "live" and "live" in states else worst

    # --- lease ---------------------------------------------------------------------------------------------------

    async def _keep_store(self) -> None:
        """Lease and ids, beside the main loop: a store that hangs delays neither repair nor status."""
        while True:
            try:
                await self._keep_lease()
                if self.active:
                    await self._save_ids()
            except Exception:
                log.exception("lease: unexpected", venue=self.venue.name)
            await asyncio.sleep(STORE_SECONDS)

    async def _keep_lease(self) -> None:
        try:
            epoch = await self._lease.take(self.venue.name, self._part)
        except StoreUnavailable as error:
            # without the store nobody can take the part from us: go on, under the epoch we had
            if not self.active and self.epoch == 0:
                log.warning("no lease store: serving alone", venue=self.venue.name, error=str(error))
                await self._begin(self._clock.now_ms())
            return
        if epoch is None and self.active:
            await self._end()
        elif epoch is not None and (not self.active or epoch != self.epoch):
            await self._begin(epoch)

    async def _begin(self, epoch: int) -> None:
        self.active, self.epoch = True, epoch
        self._ingest.set_epoch(epoch)
        await self._load_ids()
        log.info("serving", venue=self.venue.name, part=self._part, epoch=epoch)
        if not self.paused:
            await self._follow()
        self._changed.set()

    async def _end(self) -> None:
        self.active = False
        log.warning("another replica serves now", venue=self.venue.name, part=self._part)
        await self._connections.close()
        self._ingest.forget()
        self._saved.clear()
        self._unconfirmed = None
        self._changed.set()

    # --- markets -------------------------------------------------------------------------------------------------

    async def _keep_catalogue(self) -> None:
        while True:
            try:
                if await self._catalogue.refresh():
                    await self._follow()
            except Exception:
                log.exception("product list: unexpected", venue=self.venue.name)
            await asyncio.sleep(1.0)

    async def _follow(self) -> None:
        followed = self._catalogue.followed
        for instrument in followed:
            self._to_symbol[instrument.native] = instrument.symbol
            self._to_native[instrument.symbol] = instrument.native
        if self.active and not self.paused and followed:
            await self._connections.wanted([instrument.native for instrument in followed])
            self._on_followed(self.venue.name, [instrument.symbol for instrument in followed])

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if not self.is_live or not self.active or self.paused:
                self._silence.reset()
                continue
            try:
                symbol = await self._silence.tick()
                native = self._to_native.get(symbol or "", "")
                connection = self._connections.serving(native)
                if connection is not None:
                    await connection.resubscribe(native)
            except Exception:
                log.exception("silence watch: unexpected", venue=self.venue.name)

    # --- ids -----------------------------------------------------------------------------------------------------

    async def _load_ids(self) -> None:
        try:
            for symbol, (last_id, last_us) in (await self._last_ids.load(self.venue.name)).items():
                self._ingest.guard.seed(symbol, last_id, last_us)
        except StoreUnavailable as error:
            log.warning("last trade ids not loaded", venue=self.venue.name, error=str(error))

    async def _save_ids(self) -> None:
        """Remember the ids up to which the broker has confirmed everything: a restart fetches what came after."""
        ids, added = self._unconfirmed or self._position()
        settled = [publisher.settled for publisher in self._ingest.publishers]
        if any(have < need for have, need in zip(settled, added, strict=True)):
            self._unconfirmed = ids, added
            return
        self._unconfirmed = self._position()
        fresh = {symbol: known for symbol, known in ids.items() if self._saved.get(symbol) != known}
        if not fresh:
            return
        try:
            await self._last_ids.save(self.venue.name, fresh)
            self._saved.update(fresh)
        except StoreUnavailable:
            return

    def _position(self) -> tuple[dict[str, tuple[int, int]], list[int]]:
        """The newest ids handed on, and how many trades each publisher has to have confirmed for them."""
        return self._ingest.guard.last_ids(), [publisher.added for publisher in self._ingest.publishers]

    def _heard_id(self, symbol: str, newest_id: int) -> None:
        """A heartbeat names an id that we have not seen: a gap when it stays so for two heartbeats."""
        now = self._clock.monotonic()
        gap = self._ingest.guard.expect(symbol, newest_id, self._clock.now_us())
        if gap is None:
            self._hinted.pop(symbol, None)
            return
        known = self._hinted.setdefault(symbol, (gap.last_id, now))
        if (
            now - known[1] > self.venue.rules.hold_us / 1e6
            and (self._ingest.guard.last_of(symbol) or 0) < known[0]
        ):
            del self._hinted[symbol]
            self._repair.begin(Gap(symbol, gap.first_id, known[0], gap.from_us, gap.to_us))

    def _lost(self, hole: Gap) -> None:
        """Trades are gone: at least the candles of that time come from the venue."""
        self._changed.set()
        self._backfill.ask_around(self.venue.name, hole.symbol, hole.from_us // 1_000, hole.to_us // 1_000)

    # --- status --------------------------------------------------------------------------------------------------

    async def _publish_status(self) -> None:
        status = self.status()
        name = self.venue.name
        _CONNECTED.labels(name).set(1.0 if status.state == "live" else 0.0)
        for state in _ORDER:
            _CONNECTIONS.labels(name, state).set(sum(c.state == state for c in status.connections))
        _OFFSET.labels(name).set(status.clock_offset_us / 1e6)
        doubled = self._ingest.guard.counts.duplicates
        _DUPLICATES.labels(name).inc(doubled - self._doubled)
        self._doubled = doubled
        _HELD.labels(name).set(self._ingest.guard.held)
        if status.last_tick_us is not None:
            _LAST_TICK.labels(name).set(status.last_tick_us / 1e6)
        try:
            await self._bus.publish(FEEDS, status, key=key_of(FEEDS, venue=name))
        except BusUnavailable:
            return
