"""The catalogue's messages in: instruments and coins stored, the projection renewed when something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cryptopulse.common.bus.protocols import Bus, Delivery, Subscription
from cryptopulse.common.contracts.catalogue import CoinList, Instrument, InstrumentList
from cryptopulse.common.contracts.topics import COINS, INSTRUMENTS, Queue
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.ports import CatalogueStore
from cryptopulse.indicators.application.shard import ShardWorker

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
                name="instruments",
            ),
            await bus.subscribe(
                Queue(consumer="indicators", topic=COINS, bindings=("coin.#",)),
                self.on_coins,
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

    async def note_pairs(self, worker: ShardWorker) -> None:
        """Pairs that trade but that no venue's list named become known by their ticks."""
        if not worker.market.new_pairs:
            return
        listed = {(venue, pair.symbol) for pair in self._view.catalogue.pairs for venue in pair.venues}
        for venue, symbol in sorted(worker.market.new_pairs - listed):
            known = Instrument(venue=venue, symbol=symbol, native=symbol, status="trading", subscribed=True)
            # As of the beginning of time, so that whatever the venue's own list says is newer.
            await self._store.put_instruments(venue, [known], complete=False, simulated=False, at_us=0)
            self._changed = True
        worker.market.new_pairs.clear()

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
