"""Prices over HTTP, as the indicators service answers."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from cryptopulse.common.contracts.http.market_base import (
    MARKET_ERRORS,
    Answer,
    DecimalText,
    Milliseconds,
    Parameters,
)
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.prices import PriceStatus


class PriceQuery(Parameters):
    """Which price of a symbol."""

    source: str | None = Field(
        None, max_length=32, description="`consolidated` (default) or a venue, e.g. `binance`."
    )
    max_age_ms: int | None = Field(
        None, ge=1, description="503 `stale-price` when the newest price is older than this."
    )


class SourceExcluded(Answer):
    """A source that was seen and not used, and why."""

    source: str
    reason: str = Field(examples=["outlier"])


class Price(Answer):
    """The newest price of a symbol. `ts` is the venue's time, `received_at` ours; staleness is judged on ours."""

    symbol: str = Field(examples=["BTC-USD"])
    price: DecimalText
    ts: Milliseconds
    received_at: Milliseconds
    source: str = Field(examples=["consolidated"])
    status: PriceStatus
    stale: bool
    age_ms: int
    bid: DecimalText | None = None
    ask: DecimalText | None = None
    change_24h_pct: DecimalText | None = None
    high_24h: DecimalText | None = None
    low_24h: DecimalText | None = None
    volume_24h: DecimalText | None = None
    confidence: DecimalText | None = Field(
        None, description="Half the spread of the sources around the price."
    )
    sources_used: list[str] = []
    excluded: list[SourceExcluded] = []
    simulated: bool = False
    epoch: int = 0
    seq: int = 0


PRICE_ROUTES: Final[tuple[RouteSpec, ...]] = (
    RouteSpec(
        "GET",
        "/prices/{symbol}",
        "get_price",
        "Newest price of a symbol",
        None,
        1,
        None,
        Price,
        query=PriceQuery,
        tags=("prices",),
        errors=MARKET_ERRORS,
    ),
)
