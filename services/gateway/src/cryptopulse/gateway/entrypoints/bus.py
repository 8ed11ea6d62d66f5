"""What the bus brings: one exclusive queue per topic on this replica; trades and live indicators only while somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from cryptopulse.common.bus.protocols import Bus, Delivery, Handler, Subscription
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.topics import (
    ALERT_EVENTS,
    CANDLES,
    FEEDS,
    INDICATORS,
    INDICATORS_LIVE,
    PORTFOLIO_EVENTS,
    PORTFOLIO_VALUES,
    PRICES,
    SIGNALS,
    TICKS,
    Queue,
    Topic,
)
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.application.distribute import Distributor
from cryptopulse.gateway.application.fan_out import Hub

CONSUMER: Final = "gateway"
SAY_SECONDS: Final = 20.0
log = get_logger(__name__)


class Followed(Protocol):
    """Whose trades any replica follows."""

    async def want(self, symbols: Collection[str]) -> None: ...
    async def wanted(self) -> set[str]: ...


class BusConsumers:
    """The gateway's subscriptions."""

    def __init__(self, bus: Bus, hub: Hub, shared: Followed, clock: Clock) -> None:
        self._bus = bus
        self._hub = hub
        self._shared = shared
        self._clock = clock
        self._ticks: Subscription | None = None
        self._live: Subscription | None = None
        self._intervals: set[str] = set()
        self._connections = 0
        self._connected_at: float | None = None
        self._said_at = -SAY_SECONDS

    async def start(self, distributor: Distributor) -> None:
        """Subscribe to everything that a gateway always needs."""
        always: tuple[tuple[Topic, tuple[str, ...], Callable[[Any], object]], ...] = (
            (PRICES, ("batch.#",), distributor.prices),
            (CANDLES, ("batch.#", "live.#"), distributor.candles),
            (INDICATORS, ("closed.#",), distributor.indicators),
            (SIGNALS, ("signal.#",), distributor.signal),
            (FEEDS, ("status.#",), distributor.feed),
            (ALERT_EVENTS, ("alert.#",), distributor.alert),
            (PORTFOLIO_EVENTS, ("portfolio.#",), distributor.changed),
            (PORTFOLIO_VALUES, ("values.#",), distributor.valued_all),
        )
        for topic, keys, handle in always:
            await self._subscribe(topic, keys, handle)
        self._ticks = await self._subscribe(TICKS, (), distributor.ticks)
        self._live = await self._subscribe(INDICATORS_LIVE, (), distributor.indicators)

    async def _subscribe(
        self, topic: Topic, keys: tuple[str, ...], handle: Callable[[Any], object]
    ) -> Subscription:
        queue = Queue(consumer=CONSUMER, topic=topic, bindings=keys, exclusive=True)
        return await self._bus.subscribe(queue, _handler(handle), name=f"gateway.{topic.name}")

    @property
    def held_seconds(self) -> float:
        """For how long this process has heard the bus: what a client missed in that time is here."""
        return 0.0 if self._connected_at is None else self._clock.monotonic() - self._connected_at

    async def follow(self, symbol: str) -> None:
        """Let trades of a symbol come, here and to the other replicas."""
        await self._follow(symbol)
        try:
            await self._shared.want([symbol])
        except StoreUnavailable:
            log.warning("the other replicas were not told whom to follow", symbol=symbol)

    async def _follow(self, symbol: str) -> None:
        if symbol in self._hub.followed or self._ticks is None:
            return
        self._hub.followed.add(symbol)
        await self._bus.bind(self._ticks, TICKS, f"tick.*.{symbol}")

    async def keep_up(self) -> None:
        """Once a second: follow what other replicas follow, say what is wanted here, notice that the bus was away."""
        if self._bus.consuming_connections != self._connections:
            self._connections = self._bus.consuming_connections
            self._hub.tear()
            self._connected_at = self._connected_at or self._clock.monotonic()
        if self._clock.monotonic() - self._said_at >= SAY_SECONDS:
            await self._shared.want(self._wanted())
            self._said_at = self._clock.monotonic()
        for symbol in await self._shared.wanted() - self._hub.followed:
            await self._follow(symbol)

    def _wanted(self) -> set[str]:
        return {
            stream.key[1].partition("@")[0]
            for stream in self._hub.streams()
            if stream.key[0] == "trades" and self._hub.is_wanted(stream)
        }

    async def follow_indicators(self, interval: str) -> None:
        """Let forming values of an interval come."""
        if interval in self._intervals or self._live is None:
            return
        self._intervals.add(interval)
        await self._bus.bind(self._live, INDICATORS_LIVE, f"live.{interval}.#")

    async def sweep(self) -> None:
        """Stop following what nobody listens to any more; the streams stay for those who come back soon."""
        self._hub.forget()
        heard = {stream.key for stream in self._hub.streams() if self._hub.is_wanted(stream)}
        gone = self._hub.followed - self._wanted() - await self._shared.wanted()
        if gone:
            self._hub.tear(gone)
        for symbol in gone:
            self._hub.followed.discard(symbol)
            if self._ticks is not None:
                await self._bus.unbind(self._ticks, TICKS, f"tick.*.{symbol}")
        intervals = {channel.rpartition(":")[2] for channel, _ in heard if channel.startswith("indicators:")}
        for interval in tuple(self._intervals - intervals):
            self._intervals.discard(interval)
            if self._live is not None:
                await self._bus.unbind(self._live, INDICATORS_LIVE, f"live.{interval}.#")


def _handler(handle: Callable[[Any], object]) -> Handler:
    async def handler(delivery: Delivery) -> None:
        handle(delivery.message)

    return handler
