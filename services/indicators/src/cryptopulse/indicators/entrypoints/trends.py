"""The internal HTTP of trends: movers, trending, spikes, breadth, correlation, screener."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.market import CorrelationQuery, MarketQuery, MoversQuery, ScreenerQuery
from cryptopulse.common.contracts.values import plain
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.common.security.identity import caller
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.query_trends import Filter, TrendQueries
from cryptopulse.indicators.domain.trends import (
    BadFilterError,
    Column,
    Condition,
    column_of,
    conditions_of,
    dominance,
)
from cryptopulse.indicators.entrypoints.answers import answer

MOST_CORRELATED = 50


def _filter(query: MarketQuery) -> Filter:
    return Filter(query.quote.upper(), query.min_quote_volume, query.limit)


def trends_router(view: CatalogueView, trends: TrendQueries, clock: Clock) -> APIRouter:
    """Routes under /market."""
    router = APIRouter(prefix="/market", dependencies=[Depends(caller)])

    def body(query: MarketQuery, **more: Any) -> dict[str, Any]:
        return {"quote": query.quote.upper(), "as_of": clock.now_ms(), **more}

    @router.get("/movers")
    async def movers(query: Annotated[MoversQuery, Query()]) -> Response:
        gainers, losers = await trends.movers(_filter(query), query.window)
        found = body(
            query,
            window=query.window,
            gainers=[] if query.direction == "losers" else gainers,
            losers=[] if query.direction == "gainers" else losers,
        )
        return answer(found)

    @router.get("/trending")
    async def trending(query: Annotated[MarketQuery, Query()]) -> Response:
        return answer(body(query, data=await trends.trending(_filter(query))))

    @router.get("/volume-spikes")
    async def volume_spikes(query: Annotated[MarketQuery, Query()]) -> Response:
        return answer(body(query, data=await trends.volume_spikes(_filter(query))))

    @router.get("/breadth")
    async def breadth(query: Annotated[MarketQuery, Query()]) -> Response:
        return answer(body(query, **await trends.breadth(_filter(query), clock.now_us())))

    @router.get("/overview")
    async def overview(query: Annotated[MarketQuery, Query()]) -> Response:
        which = _filter(query)
        gainers, losers = await trends.movers(which, "24h")
        shares, total = dominance(view.catalogue.coins)
        found = body(
            query,
            breadth=body(query, **await trends.breadth(which, clock.now_us())),
            dominance=shares,
            market_cap_usd=None if total is None else plain(total),
            quote_volume_24h=sum((await trends.turnover(which)).values()),
            gainers=gainers[:5],
            losers=losers[:5],
            trending=(await trends.trending(which))[:5],
        )
        return answer(found)

    @router.get("/correlation")
    async def correlation(query: Annotated[CorrelationQuery, Query()]) -> Response:
        symbols = await _correlated(view, trends, query)
        matrix, count = await trends.correlation(symbols, query.interval, query.window)
        found = {
            "symbols": symbols,
            "interval": query.interval,
            "window": query.window,
            "as_of": clock.now_ms(),
            "matrix": matrix,
            "observations": count,
        }
        return answer(found)

    @router.get("/screener")
    async def screener(query: Annotated[ScreenerQuery, Query()]) -> Response:
        conditions, columns, sort = _asked(query)
        rows, matched = await trends.screen(
            _filter(query), conditions, columns, sort, descending=(query.sort or "").startswith("-")
        )
        return answer(body(query, matched=matched, data=rows))

    return router


async def _correlated(view: CatalogueView, trends: TrendQueries, query: CorrelationQuery) -> list[str]:
    if query.symbols:
        names = [name for name in query.symbols.split(",") if name.strip()]
        if len(names) > MOST_CORRELATED:
            raise Invalid(
                "too many symbols",
                errors=(FieldError("symbols", "too-many", f"give at most {MOST_CORRELATED}"),),
            )
        return list(dict.fromkeys(view.resolve(name).symbol for name in names))
    turnover = await trends.turnover(Filter(query.quote.upper(), 0.0, query.limit))
    return sorted(turnover, key=lambda symbol: (-turnover[symbol], symbol))[: query.limit]


def _asked(query: ScreenerQuery) -> tuple[list[Condition], list[Column], Column | None]:
    try:
        conditions = conditions_of(query.filter_ or "")
        columns = [column_of(one) for one in (query.columns or "").split(",") if one.strip()]
        sort = column_of(query.sort.lstrip("-")) if query.sort else None
    except BadFilterError as error:
        raise Invalid(
            str(error), code="bad-filter", errors=(FieldError("filter", "syntax", str(error)),)
        ) from error
    return conditions, columns, sort
