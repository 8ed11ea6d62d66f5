"""The bus side of live values: prices in, values out, and which books changed."""

from __future__ import annotations

from cryptopulse.common.bus.protocols import Bus, Delivery
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.portfolio import PortfolioChanged, PortfolioValueBatch
from cryptopulse.common.contracts.prices import PriceBatch, PriceUpdate
from cryptopulse.common.contracts.topics import PORTFOLIO_VALUES
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.portfolio.adapters.price_reader import DOLLAR, Owners, priced_asset, quote_of_update
from cryptopulse.portfolio.application.live import LiveValues
from cryptopulse.portfolio.application.ports import AssetRef
from cryptopulse.portfolio.domain.valuation import Quote


class PriceBoard:
    """The newest consolidated `X-USD` prices by asset; an older update never replaces a newer one."""

    def __init__(self, owners: Owners, clock: Clock) -> None:
        self._owners = owners
        self._clock = clock
        self._updates: dict[str, PriceUpdate] = {}
        self._changed: set[str] = set()

    async def on_prices(self, delivery: Delivery) -> None:
        """Handler of the prices topic."""
        batch: PriceBatch = delivery.message
        for update in batch.prices:
            if update.source == CONSOLIDATED and update.symbol.endswith("-USD"):
                self._take(update.symbol[:-4], update)

    def _take(self, asset: str, update: PriceUpdate) -> None:
        known = self._updates.get(asset)
        if known is not None and (update.epoch, update.seq) <= (known.epoch, known.seq):
            return
        self._updates[asset] = update
        self._changed.add(asset)

    def asset_of(self, ref: AssetRef) -> str:
        """The asset whose `X-USD` prices this holding."""
        return priced_asset(ref, self._owners)

    def quote(self, ref: AssetRef) -> Quote | None:
        """The newest price, judged on our clock now."""
        if ref.asset == "USD":
            return DOLLAR
        update = self._updates.get(self.asset_of(ref))
        return None if update is None else quote_of_update(update, self._clock.now_us())

    def take_changed(self) -> set[str]:
        """Assets that moved since the last call."""
        changed, self._changed = self._changed, set()
        return changed


class BusValuePublisher:
    """Publishes live values by part."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def values(self, batch: PortfolioValueBatch) -> None:
        """Raises `BusUnavailable`."""
        await self._bus.publish(PORTFOLIO_VALUES, batch, key=f"values.{batch.part}")


class ChangeListener:
    """Tells the live loop of books that any replica changed."""

    def __init__(self, live: LiveValues) -> None:
        self._live = live

    async def on_change(self, delivery: Delivery) -> None:
        """Handler of the portfolio events."""
        event: PortfolioChanged = delivery.message
        self._live.changed(event.portfolio_id)
