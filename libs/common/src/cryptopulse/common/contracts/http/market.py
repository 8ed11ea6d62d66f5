"""Market trends over HTTP, as the indicators service answers, and every endpoint of that service."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from cryptopulse.common.contracts.http.candles import CANDLE_ROUTES
from cryptopulse.common.contracts.http.coins import COIN_ROUTES
from cryptopulse.common.contracts.http.indicators import INDICATOR_ROUTES
from cryptopulse.common.contracts.http.market_base import (
    MARKET_ERRORS,
    Answer,
    DecimalText,
    Milliseconds,
    Parameters,
)
from cryptopulse.common.contracts.http.prices import PRICE_ROUTES
from cryptopulse.common.contracts.http.spec import RouteSpec

ChangeWindow = Literal["1m", "5m", "15m", "1h", "4h", "24h", "7d", "30d"]


class MarketQuery(Parameters):
    """A market of pairs with one quote, without illiquid noise."""

    quote: str = Field("USD", max_length=10)
    min_quote_volume: float = Field(0.0, ge=0, description="Least 24 h volume in quote units.")
    limit: int = Field(20, ge=1, le=200)


class MoversQuery(MarketQuery):
    """Gainers and losers."""

    by: Literal["change"] = "change"
    window: ChangeWindow = "24h"
    direction: Literal["both", "gainers", "losers"] = "both"


class MarketRow(Answer):
    """One symbol in a market list; `score` is what the list is sorted by."""

    symbol: str
    price: DecimalText | None = None
    score: float
    change_pct: float | None = None
    quote_volume_24h: float | None = None
    parts: dict[str, float] = {}


class Movers(Answer):
    """Gainers (best first) and losers (worst first)."""

    window: ChangeWindow
    quote: str
    as_of: Milliseconds
    gainers: list[MarketRow]
    losers: list[MarketRow]


class MarketList(Answer):
    """A sorted market list."""

    quote: str
    as_of: Milliseconds
    data: list[MarketRow]


class Breadth(Answer):
    """How much of the market takes part; shares between 0 and 1, null without data."""

    quote: str
    as_of: Milliseconds
    symbols: int
    advancing: int
    declining: int
    unchanged: int
    above_sma_50: float | None = None
    above_sma_200: float | None = None
    rsi_overbought: float | None = None
    rsi_oversold: float | None = None
    new_highs_24h: int = 0
    new_lows_24h: int = 0
    volume_weighted_change_24h_pct: float | None = None


class Overview(Answer):
    """The market in one answer: breadth, dominance, leaders."""

    quote: str
    as_of: Milliseconds
    breadth: Breadth
    dominance: dict[str, float] = Field(
        {}, description="Share of the known market capitalisation by asset, percent."
    )
    market_cap_usd: DecimalText | None = None
    quote_volume_24h: float = 0.0
    gainers: list[MarketRow] = []
    losers: list[MarketRow] = []
    trending: list[MarketRow] = []


class CorrelationQuery(Parameters):
    """Symbols to correlate; the most liquid when absent."""

    symbols: str | None = Field(None, max_length=4000)
    quote: str = Field("USD", max_length=10)
    interval: Literal["1m", "5m", "15m", "1h", "4h", "1d"] = "1h"
    window: int = Field(90, ge=10, le=500, description="Bars of log returns.")
    limit: int = Field(10, ge=2, le=50)


class Correlation(Answer):
    """Pearson correlations of log returns, a symmetric matrix in the order of `symbols`; null where undefined."""

    symbols: list[str]
    interval: str
    window: int
    as_of: Milliseconds
    matrix: list[list[float | None]]
    observations: int


class ScreenerQuery(MarketQuery):
    """Filter and sort by any live output, e.g. `filter=rsi_14@1h<30,volume_zscore@1h>3&sort=rsi_14@1h`."""

    filter_: str | None = Field(
        None, alias="filter", max_length=600, examples=["rsi_14@1h<30,volume_zscore@1h>3"]
    )
    sort: str | None = Field(
        None, max_length=60, description="Output, ascending; a leading `-` sorts descending."
    )
    columns: str | None = Field(None, max_length=600, description="More outputs to show, e.g. `atr_14@1d`.")


class ScreenerRow(Answer):
    """One symbol with the values that were asked for."""

    symbol: str
    price: DecimalText | None = None
    quote_volume_24h: float | None = None
    values: dict[str, float | None]


class Screener(Answer):
    """Symbols that pass every filter."""

    quote: str
    as_of: Milliseconds
    matched: int
    data: list[ScreenerRow]


ROUTES: Final[tuple[RouteSpec, ...]] = (
    *PRICE_ROUTES,
    *CANDLE_ROUTES,
    *INDICATOR_ROUTES,
    *COIN_ROUTES,
    RouteSpec(
        "GET",
        "/market/overview",
        "get_market_overview",
        "The market in one answer",
        None,
        2,
        None,
        Overview,
        query=MarketQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/movers",
        "get_market_movers",
        "Gainers and losers by window",
        None,
        2,
        None,
        Movers,
        query=MoversQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/trending",
        "get_market_trending",
        "Symbols by trending score, with its parts",
        None,
        2,
        None,
        MarketList,
        query=MarketQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/volume-spikes",
        "get_volume_spikes",
        "Symbols by volume against their usual volume",
        None,
        2,
        None,
        MarketList,
        query=MarketQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/breadth",
        "get_market_breadth",
        "How much of the market takes part",
        None,
        2,
        None,
        Breadth,
        query=MarketQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/correlation",
        "get_market_correlation",
        "Correlation matrix of log returns",
        None,
        5,
        None,
        Correlation,
        query=CorrelationQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/market/screener",
        "get_market_screener",
        "Filter and sort symbols by any live output",
        None,
        5,
        None,
        Screener,
        query=ScreenerQuery,
        tags=("market",),
        errors=MARKET_ERRORS,
    ),
)
"""Every endpoint of the indicators service that the gateway publishes."""
