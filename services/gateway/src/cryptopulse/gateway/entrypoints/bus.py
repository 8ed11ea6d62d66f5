"""What the bus brings: one exclusive queue per topic on this replica; trades and live indicators only while somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cryptopulse.common.bus.protocols import Bus, Delivery, Handler, Subscription
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
from cryptopulse.gateway.application.distribute import Distributor
from cryptopulse.gateway.application.fan_out import Hub

CONSUMER: Final = "gateway"


class BusConsumers:
    """The gateway's subscriptions."""

    def __init__(self, bus: Bus, hub: Hub) -> None:
        self._bus = bus
        self._hub = hub
        self._ticks: Subscription | None = None
        self._live: Subscription | None = None
        self._followed: set[str] = set()
        self._intervals: set[str] = set()

    async def start(self, distributor: Distributor) -> None:
        """Subscribe to everything that a gateway always needs."""
        always: tuple[tuple[Topic, str, Callable[[Any], object]], ...] = (
            (PRICES, "batch.#", distributor.prices),
            (CANDLES, "batch.#", distributor.candles),
            (INDICATORS, "closed.#", distributor.indicators),
            (SIGNALS, "signal.#", distributor.signal),
            (FEEDS, "status.#", distributor.feed),
            (ALERT_EVENTS, "alert.#", distributor.alert),
            (PORTFOLIO_EVENTS, "portfolio.#", distributor.changed),
            (PORTFOLIO_VALUES, "values.#", distributor.valued_all),
        )
        for topic, key, handle in always:
            await self._subscribe(topic, (key,), handle)
        self._ticks = await self._subscribe(TICKS, (), distributor.ticks)
        self._live = await self._subscribe(INDICATORS_LIVE, (), distributor.indicators)

    async def _subscribe(
        self, topic: Topic, keys: tuple[str, ...], handle: Callable[[Any], object]
    ) -> Subscription:
        queue = Queue(consumer=CONSUMER, topic=topic, bindings=keys, exclusive=True)
        return await self._bus.subscribe(queue, _handler(handle), name=f"gateway.{topic.name}")

    async def follow(self, symbol: str) -> None:
        """Let trades of a symbol come."""
        if symbol in self._followed or self._ticks is None:
            return
        self._followed.add(symbol)
        await self._bus.bind(self._ticks, TICKS, f"tick.*.{symbol}")

    async def follow_indicators(self, interval: str) -> None:
        """Let forming values of an interval come."""
        if interval in self._intervals or self._live is None:
            return
        self._intervals.add(interval)
        await self._bus.bind(self._live, INDICATORS_LIVE, f"live.{interval}.#")

    async def sweep(self) -> None:
        """Stop following what nobody listens to any more; the streams stay for those who come back soon."""
        heard = {stream.key for stream in self._hub.streams() if self._hub.is_wanted(stream)}
        symbols = {subject for channel, subject in heard if channel == "trades"}
        for symbol in tuple(self._followed - symbols):
            self._followed.discard(symbol)
            self._hub.drop(("trades", symbol))
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
