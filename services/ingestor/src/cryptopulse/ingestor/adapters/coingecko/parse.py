"""CoinGecko's rows to coins and reference prices: pure; a price that is missing or unbelievable is absent, never 0."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Raw

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.intervals import Interval, length_ms
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import REFERENCE, ValueRefusedError, checked_decimal, symbol_of
from cryptopulse.ingestor.adapters.coingecko.messages import Market, Ohlc
from cryptopulse.ingestor.domain.rows import RowRefused, ascending, believed
from cryptopulse.ingestor.domain.times import from_rfc3339

VENUE: Final = REFERENCE
MAX_NAME: Final = 200
MAX_ADDRESS: Final = 2_000
MAX_DIGITS: Final = 30
"""Before and after the point; a market cap has 14 at most, a change of a day up to 20 decimals."""
NONE: Final = Decimal(0)


def coin_of(row: Market) -> Coin:
    """The coin, as far as the row knows it."""
    return Coin(
        id=row.id,
        symbol=row.symbol.lower()[:MAX_NAME],
        name=row.name[:MAX_NAME],
        image=row.image if row.image and len(row.image) <= MAX_ADDRESS else None,
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


def page_of(
    rows: Iterable[Raw], received_us: int, refused: RowRefused
) -> tuple[list[Coin], list[ReferencePrice]]:
    """Coins and prices of a page, each coin once."""
    unique = {row.id: row for row in believed(rows, Market, lambda row: row, refused)}
    prices = (price_of(row, received_us) for row in unique.values())
    return [coin_of(row) for row in unique.values()], [price for price in prices if price is not None]


def candles_of(
    rows: Iterable[Raw], symbol: str, interval: Interval, now_ms: int, refused: RowRefused
) -> list[Candle]:
    """Closed candles, ascending, each once; rows off the interval's grid or without believable prices are left out."""
    length = length_ms(interval)

    def candle(row: Ohlc) -> Candle | None:
        prices = [_price(value) for value in (row.open, row.high, row.low, row.close)]
        opened, high, low, closed = prices
        if row.closed_ms % length or row.closed_ms > now_ms or opened is None or closed is None:
            return None
        if high is None or low is None or not low <= min(opened, closed) <= max(opened, closed) <= high:
            return None
        at = row.closed_ms - length
        return Candle(symbol, VENUE, interval, at, opened, high, low, closed, NONE, NONE, 0, NONE)

    return ascending(believed(rows, Ohlc, candle, refused))


def _price(value: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    try:
        return checked_decimal(str(value))
    except ValueRefusedError:
        return None


def _finite(value: Decimal | None) -> Decimal | None:
    if value is None or not value.is_finite():
        return None
    exponent = value.as_tuple().exponent
    is_bounded = isinstance(exponent, int) and abs(exponent) <= MAX_DIGITS and value.adjusted() < MAX_DIGITS
    return value if is_bounded else None


def _time(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return from_rfc3339(text)
    except ValueRefusedError:
        return None
