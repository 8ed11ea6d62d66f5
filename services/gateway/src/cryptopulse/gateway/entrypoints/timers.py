"""What time wakes: the interval classes, heartbeats, sweeps, polls of what no message brings, and housekeeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.common.contracts.resolver import Catalogue
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.application.distribute import Distributor
from cryptopulse.gateway.application.fan_out import TICK_SECONDS
from cryptopulse.gateway.application.seed_fan_out import SeedHub
from cryptopulse.gateway.application.subscribe import Subscriptions
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.protocol import HEARTBEAT_MS
from cryptopulse.gateway.entrypoints.figures import Figures

log = get_logger(__name__)
Beat = Callable[[], None]

WATCH_SECONDS: Final = 30
WATCHED_MAX: Final = 20_000
MARKET_SECONDS: Final = 5
WANTED_SECONDS: Final = 120
UNFOLLOW_SECONDS: Final = 60
PUSHED: Final = frozenset({"candles:1s", "candles:1m"})
"""Of these the bus brings all that there is."""


@dataclass
class Polled:
    """What the timers read."""

    catalogue: Callable[[], Awaitable[Catalogue | None]]
    forming: Callable[[list[tuple[str, str, str]]], Awaitable[list[Candle]]]
    reference: Callable[[str], Awaitable[ReferencePrice | None]]
    unfollow: Callable[[], Awaitable[None]]
    keep_up: Callable[[], Awaitable[None]]
    clean: Callable[[], Awaitable[None]]
    ask_peers: Callable[[], Awaitable[dict[str, dict[str, Any]]]]


@dataclass
class Timers:
    """The loops of the gateway; each is supervised by the runtime."""

    use: UseCases
    distributor: Distributor
    subscriptions: Subscriptions
    seeds: SeedHub
    polled: Polled
    _warned: set[str] = field(default_factory=set)
    _wanted_at: float = -1e9
    _figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self._figures = Figures(self.use.hub)

    async def classes(self, beat: Beat) -> None:
        """The periods of the interval classes, heartbeats and sweeps, from one clock."""
        hub = self.use.hub
        loop = asyncio.get_running_loop()
        start, count = loop.time(), 0
        while True:
            count += 1
            await asyncio.sleep(max(0.0, start + count * TICK_SECONDS - loop.time()))
            if loop.time() - start - count * TICK_SECONDS > 1.0:
                start, count = loop.time(), 0
            beat()
            hub.tick(100)
            if count % 10 == 0:
                hub.tick(1_000)
                self.seeds.tick()
                hub.sweep()
                self._figures.publish()
                self.distributor.check_ages()
            if count % 50 == 0:
                hub.tick(5_000)
            if count % (HEARTBEAT_MS // 100) == 0:
                hub.heartbeat()

    async def catalogue(self, beat: Beat) -> None:
        """Names mean what the newest catalogue says."""
        await self._every(2.0, self._catalogue, beat)

    async def _catalogue(self) -> None:
        found = await self.polled.catalogue()
        if found is not None:
            self.use.market.use_catalogue(found)

    async def follow(self, beat: Beat) -> None:
        """Follow what other replicas follow."""
        await self._every(1.0, self.polled.keep_up, beat)

    async def forming(self, beat: Beat) -> None:
        """Forming candles of the longer intervals, for those who listen."""
        await self._every(1.0, self._forming, beat)

    async def _forming(self) -> None:
        wanted = []
        for stream in self.use.hub.streams():
            channel, subject = stream.key
            if channel.startswith("candles:") and channel not in PUSHED and stream.has_members:
                symbol, _, source = subject.partition("@")
                wanted.append((symbol, source, channel.partition(":")[2]))
        self.distributor.forming(await self.polled.forming(wanted))

    async def market(self, beat: Beat) -> None:
        """The movers of the market, while someone listens."""
        await self._every(MARKET_SECONDS, self._market, beat)

    async def _market(self) -> None:
        stream = self.use.hub.find(("market", ""))
        if stream is None or not stream.has_members:
            return
        answer = await self.use.services.call("indicators", "GET", "/market/overview", identity=ANONYMOUS)
        if answer.status == 200:
            self.distributor.market_overview(orjson.loads(answer.body))

    async def watches(self, beat: Beat) -> None:
        """Keep live values of watched portfolios coming."""
        await self._every(WATCH_SECONDS, self._watches, beat)

    async def _watches(self) -> None:
        ids = {
            int(stream.key[0].partition(":")[2])
            for stream in self.use.hub.streams()
            if stream.key[0].startswith("portfolio:") and stream.has_members
        }
        if ids:
            await self.subscriptions.watch(sorted(ids)[:WATCHED_MAX], ttl_seconds=WATCH_SECONDS * 2)

    async def coins(self, beat: Beat) -> None:
        """Prices of coins that no connected venue trades, for the seed's sockets."""
        await self._every(2.0, self._coins, beat)

    async def _coins(self) -> None:
        absent = self.seeds.without_market()
        for coin in absent[:200]:
            found = await self.polled.reference(coin)
            if found is not None:
                self.seeds.references[coin] = found
        now = self.use.clock.monotonic()
        if absent and now - self._wanted_at > WANTED_SECONDS / 2:
            self._wanted_at = now
            body = orjson.dumps({"coin_ids": absent[:200], "ttl_seconds": WANTED_SECONDS})
            await self.use.services.call(
                "ingestor", "PUT", "/wanted", identity=Identity(None, kind="service"), content=body,
                headers={"content-type": "application/json"},
            )  # fmt: skip

    async def peers(self, beat: Beat) -> None:
        """How the other services are, for `/health/`."""
        await self._every(2.0, self._peers, beat)

    async def _peers(self) -> None:
        self.use.peers.update(await self.polled.ask_peers())

    async def housekeeping(self, beat: Beat) -> None:
        """Stop following what nobody hears; delete what has expired."""
        count = 0
        while True:
            await self._guarded(self.polled.unfollow)
            if count % 10 == 0:
                await self._guarded(self.polled.clean)
            count += 1
            for _ in range(UNFOLLOW_SECONDS // 5):
                beat()
                await asyncio.sleep(5)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]], beat: Beat) -> None:
        while True:
            beat()
            await self._guarded(work)
            await asyncio.sleep(seconds)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """A dependency that is away is said once, and tried again at the next turn."""
        name = getattr(work, "__name__", "work")
        try:
            await work()
        except CryptoPulseError as error:
            if name not in self._warned:
                log.warning("a timer's work failed", work=name, error=str(error))
            self._warned.add(name)
        else:
            self._warned.discard(name)
