"""What a unit of USDT, USDC or EUR is worth in USD by our own consolidated prices, for every shard of this replica."""

from __future__ import annotations

from decimal import Decimal

from cryptopulse.common.contracts.prices import STALE_AFTER_MS, PriceUpdate
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.indicators.application.build_candles import RATE_ASSETS


class RateBook:
    """Newest rates. One that is older than 30 s, or was stale when it was said, is no rate."""

    SYMBOLS = tuple(f"{asset}-USD" for asset in RATE_ASSETS)

    def __init__(self) -> None:
        self._rates: dict[str, PriceUpdate] = {}

    def take(self, update: PriceUpdate) -> None:
        """Remember a newer consolidated price of a rate asset; everything else is ignored."""
        if update.source != CONSOLIDATED or update.symbol not in self.SYMBOLS:
            return
        known = self._rates.get(update.symbol)
        if known is None or (update.epoch, update.seq) > (known.epoch, known.seq):
            self._rates[update.symbol] = update

    def usd(self, asset: str, now_us: int) -> Decimal | None:
        """USD per unit of `asset` at `now_us` on our clock; None when unknown or stale."""
        known = self._rates.get(f"{asset}-USD")
        if known is None or known.status == "stale":
            return None
        # A reference price (`fallback`) is refreshed by the minute, a market's by the second.
        patience = 30 if known.status == "fallback" else 1
        if now_us - known.received_us > patience * STALE_AFTER_MS * 1000:
            return None
        return known.price
