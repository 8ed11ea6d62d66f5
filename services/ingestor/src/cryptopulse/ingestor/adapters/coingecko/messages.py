"""CoinGecko's wire model; its JSON numbers are decoded to decimals from their text."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Ohlc(msgspec.Struct, array_like=True):
    """A row of `/coins/{id}/ohlc`: the time of the close in ms, and no volume."""

    closed_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class Market(msgspec.Struct):
    """A row of `/coins/markets`. Dead coins have nulls."""

    id: str
    symbol: str = ""
    name: str = ""
    image: str | None = None
    current_price: Decimal | None = None
    market_cap: Decimal | None = None
    market_cap_rank: int | None = None
    total_volume: Decimal | None = None
    price_change_24h: Decimal | None = None
    price_change_percentage_24h: Decimal | None = None
    circulating_supply: Decimal | None = None
    last_updated: str | None = None
