"""Newest prices from Redis: our consolidated price of `X-USD`, else the coin's reference price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.prices import PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.portfolio.application.ports import AssetRef, Coin
from cryptopulse.portfolio.domain.money import ONE
from cryptopulse.portfolio.domain.valuation import Quote

REFERENCE_STALE_MS: Final = 15 * 60_000
"""Reference prices are polled, so they grow old later than market prices."""
DOLLAR: Final = Quote(ONE, 0)


class Owners(Protocol):
    """Which symbol a coin is priced under."""

    def coin(self, coin_id: str) -> Coin | None: ...


def priced_asset(ref: AssetRef, owners: Owners) -> str:
    """The asset of `X-USD` for a holding: a book may know a coin by its id whose symbol is traded."""
    if ref.coin_id is not None and ref.asset == ref.asset.lower():
        coin = owners.coin(ref.coin_id)
        if coin is not None:
            return coin.asset
    return ref.asset


def quote_of_update(update: PriceUpdate, now_us: int) -> Quote:
    """A market price as a quote."""
    return Quote(
        price=update.price,
        age_ms=age_ms(update.received_us, now_us),
        stale=is_stale(update.received_us, now_us) or update.status == "stale",
        status=update.status,
        change_24h_pct=update.change_24h_pct,
        epoch=update.epoch,
        seq=update.seq,
        simulated=update.simulated,
    )


def quote_of_reference(reference: ReferencePrice, now_us: int) -> Quote:
    """A reference price as a quote, always labelled `fallback`."""
    age = age_ms(reference.received_us, now_us)
    return Quote(
        price=reference.price,
        age_ms=age,
        stale=age > REFERENCE_STALE_MS,
        status="fallback",
        change_24h_pct=reference.change_24h_pct,
        epoch=0,
        seq=reference.updated_us,
    )


def better(market: Quote | None, reference: Quote | None) -> Quote | None:
    """The market's price while it is fresh, else a fresh reference, else whatever is known."""
    if market is not None and not market.stale:
        return market
    if reference is not None and not reference.stale:
        return reference
    return market or reference


class RedisPriceReader:
    """One MGET per question."""

    def __init__(self, redis: Redis, owners: Owners, clock: Clock) -> None:
        self._redis = redis
        self._owners = owners
        self._clock = clock
        self._updates = msgspec.msgpack.Decoder(PriceUpdate)
        self._references = msgspec.msgpack.Decoder(ReferencePrice)

    async def latest(self, assets: Sequence[AssetRef]) -> dict[str, Quote]:
        """Quotes by the asset as asked; what is unknown is left out."""
        wanted = [ref for ref in assets if ref.asset != "USD"]
        found = {"USD": DOLLAR} if len(wanted) != len(assets) else {}
        if not wanted:
            return found
        names = [keys.price(f"{priced_asset(ref, self._owners)}-USD") for ref in wanted]
        coins = [ref for ref in wanted if ref.coin_id]
        names += [keys.coin_price(ref.coin_id or "") for ref in coins]
        async with store_errors():
            values = cast("list[bytes | None]", await self._redis.mget(names))
        now_us = self._clock.now_us()
        references = {
            ref.asset: quote_of_reference(self._references.decode(raw), now_us)
            for ref, raw in zip(coins, values[len(wanted) :], strict=True)
            if raw is not None
        }
        for ref, raw in zip(wanted, values, strict=False):
            market = None if raw is None else quote_of_update(self._updates.decode(raw), now_us)
            quote = better(market, references.get(ref.asset))
            if quote is not None:
                found[ref.asset] = quote
        return found
