"""The catalogue's messages in: instruments and coins stored, the projection renewed when something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cryptopulse.common.bus.protocols import Bus, Delivery, Subscription
from cryptopulse.common.contracts.catalogue import CoinList, InstrumentList
from cryptopulse.common.contracts.topics import COINS, INSTRUMENTS, Queue
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.ports import CatalogueStore

log = get_logger(__name__)
REFRESH_SECONDS: Final = 1.0


class CatalogueConsumer:
    """Shared queues: whichever replica takes a message stores it and renews the projection."""

    def __init__(self, store: CatalogueStore, view: CatalogueView) -> None:
        self._store = store
        self._view = view
        self._changed = False

    async def subscribe(self, bus: Bus) -> list[Subscription]:
        """Consume both topics."""
        return [
            await bus.subscribe(
                Queue(consumer="indicators", topic=INSTRUMENTS, bindings=("instrument.#",)),
                self.on_instruments,
                prefetch=4,
                name="instruments",
            ),
            await bus.subscribe(
                Queue(consumer="indicators", topic=COINS, bindings=("coin.#",)),
                self.on_coins,
                prefetch=4,
                name="coins",
            ),
        ]

    async def on_instruments(self, delivery: Delivery) -> None:
        """A venue's list of pairs."""
        message: InstrumentList = delivery.message
        await self._store.put_instruments(
            message.venue,
            message.instruments,
            complete=message.complete,
            simulated=message.simulated,
            at_us=message.at_us,
        )
        self._changed = True

    async def on_coins(self, delivery: Delivery) -> None:
        """Some hundred coins."""
        message: CoinList = delivery.message
        await self._store.put_coins(message.coins, simulated=message.simulated)
        self._changed = True

    async def run(self, beat: Callable[[], None]) -> None:
        """Renew the projection after changes, at most once a second, and follow what other replicas renewed."""
        while True:
            try:
                if self._changed:
                    self._changed = False
                    self._view.use(await self._store.project())
                else:
                    await self._view.refresh()
            except Retryable as error:
                self._changed = True
                log.warning("catalogue not renewed", error=str(error)[:200])
            beat()
            await asyncio.sleep(REFRESH_SECONDS)
