"""The internal HTTP: prices, candles, indicators and signals, exactly as the public API answers them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.candles import MAX_SPAN_BARS, CandleQuery, CandleSpansQuery
from cryptopulse.common.contracts.http.indicators import IndicatorHistoryQuery, IndicatorQuery, SignalQuery
from cryptopulse.common.contracts.http.prices import PriceQuery
from cryptopulse.common.contracts.intervals import length_ms, next_open
from cryptopulse.common.contracts.values import CONSOLIDATED, REFERENCE
from cryptopulse.common.errors import FieldError, Invalid, NotFound, UpstreamUnavailable
from cryptopulse.common.security.identity import caller
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.ports import CandleSpans
from cryptopulse.indicators.application.query_history import HistoryQueries
from cryptopulse.indicators.domain.registry import DEFINITIONS, live_studies
from cryptopulse.indicators.domain.study import warmup_of
from cryptopulse.indicators.domain.ta_catalogue import TA_BY_NAME, TA_DEFINITIONS, TaDefinition
from cryptopulse.indicators.entrypoints import answers
from cryptopulse.indicators.entrypoints.coins import Latest
from cryptopulse.indicators.entrypoints.indicator_names import (
    definition_body,
    found_definition,
    made_study,
    parameters_of,
    point_body,
    split_names,
    ta_definition_body,
    ta_parameters,
    wanted_outputs,
)


def price_router(
    view: CatalogueView,
    queries: HistoryQueries,
    store: CandleSpans,
    latest: Latest,
    cursor: Cursor,
    clock: Clock,
) -> APIRouter:
    """Routes of prices and candles."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/prices/{symbol}")
    async def price(symbol: str, query: Annotated[PriceQuery, Query()]) -> Response:
        resolved = view.resolve(symbol)
        source = query.source or CONSOLIDATED
        update = await latest.price(resolved.symbol, source)
        now_us = clock.now_us()
        if update is None and source == CONSOLIDATED and resolved.coin_id and resolved.quote == "USD":
            reference = (await latest.references([resolved.coin_id]))[0]
            if reference is not None:
                return answers.answer(answers.reference_body(resolved.symbol, reference, now_us))
        if update is None:
            raise NotFound(f"There is no price of {resolved.symbol} from {source} yet.", code="no-price")
        body = answers.price_body(update, now_us)
        if query.max_age_ms is not None and body["age_ms"] > query.max_age_ms:
            raise UpstreamUnavailable(f"the newest price is {body['age_ms']} ms old", retry_after_seconds=1)
        return answers.answer(body)

    @router.get("/prices/{symbol}/history")
    @router.get("/candles/{symbol}")
    async def candles(symbol: str, query: Annotated[CandleQuery, Query()]) -> Response:
        resolved = view.resolve(symbol)
        source, interval = query.source or CONSOLIDATED, query.interval
        binding = ("candles", resolved.symbol, source, interval)
        from_ms, to_ms = answers.time_ms(query.from_, "from"), answers.time_ms(query.to, "to")
        if query.cursor:
            from_ms = int(cursor.decode(query.cursor, binding)[0])
        if from_ms is not None and to_ms is not None and from_ms >= to_ms:
            raise Invalid(
                "from must be before to", errors=(FieldError("from", "range", "give a time before `to`"),)
            )
        rows = await queries.candles(
            resolved.symbol, source, interval, from_ms=from_ms, to_ms=to_ms, limit=query.limit
        )
        if not rows and query.source is None and resolved.coin_id and resolved.quote == "USD":
            reference = await queries.candles(
                resolved.symbol, REFERENCE, interval, from_ms=from_ms, to_ms=to_ms, limit=query.limit
            )
            source, rows = (REFERENCE, reference) if reference else (source, rows)
        more = from_ms is not None and len(rows) >= query.limit
        body = {
            "symbol": resolved.symbol,
            "interval": interval,
            "source": source,
            "data": rows,
            "next_cursor": cursor.encode((next_open(rows[-1].open_time, interval),), binding)
            if more
            else None,
        }
        return answers.answer(body)

    @router.get("/candles/{symbol}/spans")
    async def spans(symbol: str, query: Annotated[CandleSpansQuery, Query()]) -> Response:
        """Between services: no forming bars, packed by columns."""
        resolved = view.resolve(symbol)
        asked = [
            (int(since), int(until)) for since, _, until in (s.partition("-") for s in query.spans.split(","))
        ]
        bars = sum(max(0, until - since) for since, until in asked) / length_ms(query.interval)
        if bars > MAX_SPAN_BARS:
            fault = FieldError("spans", "range", f"ask for at most {MAX_SPAN_BARS} bars")
            raise Invalid(f"the spans hold {bars:.0f} bars", errors=(fault,))
        found = await store.spans(resolved.symbol, query.source, query.interval, asked)
        return Response(msgspec.msgpack.encode(found), media_type="application/msgpack")

    return router


def indicator_router(
    view: CatalogueView, queries: HistoryQueries, latest: Latest, cursor: Cursor, clock: Clock
) -> APIRouter:
    """Routes of indicators and signals."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/indicators")
    async def catalogue() -> Response:
        ours = [definition_body(one) for one in DEFINITIONS]
        theirs = [ta_definition_body(one) for one in TA_DEFINITIONS if not one.live_twin]
        return answers.answer({"data": ours + theirs, "next_cursor": None})

    @router.get("/indicators/{symbol}")
    async def values(symbol: str, query: Annotated[IndicatorQuery, Query()], request: Request) -> Response:
        resolved = view.resolve(symbol)
        ours, theirs = split_names(query.names)
        names, extra = wanted_outputs(ours, request, query.interval) if ours or not theirs else ([], {})
        update = await queries.newest(
            resolved.symbol,
            query.source or CONSOLIDATED,
            query.interval,
            extra,
            closed_only=query.closed,
            now_ms=clock.now_ms(),
        )
        if update is None:
            raise NotFound(
                f"There are no candles of {resolved.symbol} at {query.interval} yet.", code="no-candles"
            )
        studies = [*live_studies(query.interval), *extra.values()]
        warmup = warmup_of(studies, update.warmup.have, names)
        body = answers.values_body(update, names, warmup, clock.now_us())
        for definition in theirs:
            parameters = ta_parameters(definition, parameters_of(request, definition.name))
            rows = await queries.by_ta(
                resolved.symbol,
                query.source or CONSOLIDATED,
                query.interval,
                definition,
                parameters,
                from_ms=None,
                to_ms=None,
                limit=1,
            )
            values = rows[-1].values if rows else dict.fromkeys(definition.outputs)
            body["values"] |= values
            body["engine"] |= dict.fromkeys(values, "ta")
            body["warmup"]["needed"] = max(body["warmup"]["needed"], definition.least)
            body["warmup"]["converged"] &= update.warmup.have >= definition.bars_needed(parameters)
        return answers.answer(body)

    async def ta_history(
        symbol: str, definition: TaDefinition, query: IndicatorHistoryQuery, request: Request
    ) -> Response:
        source, interval = query.source or CONSOLIDATED, query.interval
        parameters = ta_parameters(definition, parameters_of(request, definition.name, plain_names=True))
        binding = ("ta", symbol, source, interval, definition.name)
        from_ms, to_ms = answers.time_ms(query.from_, "from"), answers.time_ms(query.to, "to")
        if query.cursor:
            from_ms = int(cursor.decode(query.cursor, binding)[0])
        rows = await queries.by_ta(
            symbol, source, interval, definition, parameters, from_ms=from_ms, to_ms=to_ms, limit=query.limit
        )
        more = from_ms is not None and len(rows) >= query.limit
        body = {
            "symbol": symbol,
            "interval": interval,
            "source": source,
            "name": definition.name,
            "parameters": parameters,
            "engine": "ta",
            "anchor": None,
            "data": [point_body(row) for row in rows],
            "next_cursor": cursor.encode((next_open(rows[-1].open_time, interval),), binding)
            if more
            else None,
        }
        return answers.answer(body)

    @router.get("/indicators/{symbol}/{name}/history")
    async def history(
        symbol: str, name: str, query: Annotated[IndicatorHistoryQuery, Query()], request: Request
    ) -> Response:
        resolved = view.resolve(symbol)
        source, interval = query.source or CONSOLIDATED, query.interval
        ta = TA_BY_NAME.get(name.lower())
        if ta is not None and (query.engine == "ta" or not ta.live_twin):
            return await ta_history(resolved.symbol, ta, query, request)
        definition, given = found_definition(name, "name")
        given |= parameters_of(request, definition.name, plain_names=True)
        study, parameters = made_study(definition, given, interval)
        binding = ("indicator", resolved.symbol, source, interval, name)
        from_ms, to_ms = answers.time_ms(query.from_, "from"), answers.time_ms(query.to, "to")
        if query.cursor:
            from_ms = int(cursor.decode(query.cursor, binding)[0])
        rows, anchor = await queries.fold(
            resolved.symbol, source, interval, [study], from_ms=from_ms, to_ms=to_ms, limit=query.limit
        )
        more = from_ms is not None and len(rows) >= query.limit
        body = {
            "symbol": resolved.symbol,
            "interval": interval,
            "source": source,
            "name": definition.name,
            "parameters": parameters,
            "engine": "cryptopulse",
            "anchor": anchor,
            "data": [point_body(row) for row in rows],
            "next_cursor": cursor.encode((next_open(rows[-1].open_time, interval),), binding)
            if more
            else None,
        }
        return answers.answer(body)

    @router.get("/signals")
    async def signals(query: Annotated[SignalQuery, Query()]) -> Response:
        symbol = view.resolve(query.symbol).symbol if query.symbol else None
        rows = [
            answers.signal_body(signal)
            for signal in await latest.signals()
            if (symbol is None or signal.symbol == symbol)
            and (query.kind is None or signal.kind == query.kind)
            and (query.interval is None or signal.interval == query.interval)
            and (query.status is None or signal.status == query.status)
        ]
        return answers.answer({"data": rows[: query.limit], "next_cursor": None})

    return router
