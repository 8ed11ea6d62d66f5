"""CoinGecko's wire model; its JSON numbers are decoded to decimals from their text."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec

from cryptopulse.ingestor.domain.numbers import AtMs, Whole


class Ohlc(msgspec.Struct, array_like=True):
    """A row of `/coins/{id}/ohlc`: the time of the close in ms, and no volume."""

    closed_ms: AtMs
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class Market(msgspec.Struct):
    """A row of `/coins/markets`. Dead coins have nulls."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    symbol: str = ""
    name: str = ""
    image: str | None = None
    current_price: Decimal | None = None
    market_cap: Decimal | None = None
    market_cap_rank: Whole | None = None
    total_volume: Decimal | None = None
    price_change_24h: Decimal | None = None
    price_change_percentage_24h: Decimal | None = None
    circulating_supply: Decimal | None = None
    last_updated: str | None = None
