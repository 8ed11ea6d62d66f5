"""Symbols and coins over HTTP, as the indicators service answers."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from cryptopulse.common.contracts.http.market_base import (
    MARKET_ERRORS,
    MAX_LIMIT,
    Answer,
    DecimalText,
    Milliseconds,
    Parameters,
)
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.prices import PriceStatus


class SymbolQuery(Parameters):
    """Filters of the symbol list."""

    quote: str | None = Field(None, max_length=10)
    provider: str | None = Field(None, max_length=32)
    q: str | None = Field(None, max_length=64, description="Part of the symbol or of the coin's name.")
    limit: int = Field(200, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=400)


class SymbolRow(Answer):
    """One pair: who lists it, and which coin its base is."""

    symbol: str
    base: str
    quote: str
    providers: list[str]
    price_precision: int | None = None
    status: str
    coin_id: str | None = None
    name: str | None = None
    market_cap_rank: int | None = None


class SymbolList(Answer):
    """Pairs by name."""

    data: list[SymbolRow]
    next_cursor: str | None = None


class CoinSearchQuery(Parameters):
    """A part of a coin's id, symbol or name."""

    q: str = Field("", max_length=64)
    limit: int = Field(20, ge=1, le=100)


class CoinMatch(Answer):
    """A coin that matches a search."""

    id: str
    name: str
    symbol: str
    thumb: str | None = None
    market_cap_rank: int | None = None


class CoinMatches(Answer):
    """Matches, best rank first."""

    coins: list[CoinMatch]


class CoinPriceQuery(Parameters):
    """CoinGecko ids, comma-separated."""

    ids: str = Field(max_length=4000, examples=["bitcoin,ethereum"])


class CoinPrice(Answer):
    """A coin's newest price in USD: our consolidated one, else CoinGecko's (`status` fallback)."""

    id: str
    symbol: str
    name: str
    image: str | None = None
    market_cap_rank: int | None = None
    current_price: DecimalText | None = None
    price_change_24h: DecimalText | None = None
    price_change_percentage_24h: DecimalText | None = None
    market_cap: DecimalText | None = None
    volume_24h: DecimalText | None = None
    last_updated: Milliseconds | None = None
    status: PriceStatus | None = None
    source: str | None = None
    stale: bool = True
    age_ms: int | None = None
    simulated: bool = False


class CoinPrices(Answer):
    """Prices by coin id; an id that nobody knows is absent from `prices` and listed in `unknown`."""

    prices: dict[str, CoinPrice]
    unknown: list[str] = []


COIN_ROUTES: Final[tuple[RouteSpec, ...]] = (
    RouteSpec(
        "GET",
        "/symbols",
        "list_symbols",
        "All pairs",
        None,
        1,
        None,
        SymbolList,
        query=SymbolQuery,
        tags=("symbols",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/symbols/{symbol}",
        "get_symbol",
        "One pair",
        None,
        1,
        None,
        SymbolRow,
        tags=("symbols",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/coins/search",
        "search_coins",
        "Search coins by id, symbol or name",
        None,
        1,
        None,
        CoinMatches,
        query=CoinSearchQuery,
        tags=("coins",),
        errors=MARKET_ERRORS,
    ),
    RouteSpec(
        "GET",
        "/coins",
        "get_coin_prices",
        "Newest prices of coins by CoinGecko id",
        None,
        1,
        None,
        CoinPrices,
        query=CoinPriceQuery,
        tags=("coins",),
        errors=MARKET_ERRORS,
    ),
)
