"""CoinGecko's rows to coins and reference prices: pure; a price that is missing or unbelievable is absent, never 0."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import ValueRefusedError, checked_decimal, symbol_of
from cryptopulse.ingestor.adapters.coingecko.messages import Market
from cryptopulse.ingestor.domain.times import from_rfc3339

VENUE: Final = "coingecko"
MAX_NAME: Final = 200


def coin_of(row: Market) -> Coin:
    """The coin, as far as the row knows it."""
    return Coin(
        id=row.id,
        symbol=row.symbol.lower()[:MAX_NAME],
        name=row.name[:MAX_NAME],
        image=row.image,
        market_cap_rank=row.market_cap_rank,
        market_cap=_finite(row.market_cap),
        circulating_supply=_finite(row.circulating_supply),
        price=_price(row.current_price),
        change_24h=_finite(row.price_change_24h),
        change_24h_pct=_finite(row.price_change_percentage_24h),
        volume_24h=_finite(row.total_volume),
        updated_us=_time(row.last_updated),
    )


def price_of(row: Market, received_us: int) -> ReferencePrice | None:
    """The reference price in USD; None without a believable price."""
    price = _price(row.current_price)
    if price is None:
        return None
    try:
        symbol = symbol_of(row.symbol, "USD")
    except ValueRefusedError:
        return None
    return ReferencePrice(
        coin_id=row.id,
        symbol=symbol,
        price=price,
        updated_us=_time(row.last_updated) or received_us,
        received_us=received_us,
        change_24h=_finite(row.price_change_24h),
        change_24h_pct=_finite(row.price_change_percentage_24h),
        market_cap=_finite(row.market_cap),
        volume_24h=_finite(row.total_volume),
    )


def page_of(rows: Iterable[Market], received_us: int) -> tuple[list[Coin], list[ReferencePrice]]:
    """Coins and prices of a page, each coin once."""
    unique = {row.id: row for row in rows if row.id}
    prices = (price_of(row, received_us) for row in unique.values())
    return [coin_of(row) for row in unique.values()], [price for price in prices if price is not None]


def _price(value: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    try:
        return checked_decimal(str(value))
    except ValueRefusedError:
        return None


def _finite(value: Decimal | None) -> Decimal | None:
    return value if value is not None and value.is_finite() and value.adjusted() < 30 else None


def _time(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return from_rfc3339(text)
    except ValueRefusedError:
        return None
