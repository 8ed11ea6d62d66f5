"""The internal HTTP: prices, candles, indicators, symbols and coins, exactly as the public API answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request, Response

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.http.market import (
    CandleQuery,
    CoinPriceQuery,
    CoinSearchQuery,
    IndicatorHistoryQuery,
    IndicatorQuery,
    PriceQuery,
    SignalQuery,
    SymbolQuery,
)
from cryptopulse.common.contracts.indicators import Signal
from cryptopulse.common.contracts.intervals import Interval, next_open
from cryptopulse.common.contracts.prices import PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.resolver import Pair
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import CONSOLIDATED, plain
from cryptopulse.common.errors import FieldError, Invalid, NotFound, UpstreamUnavailable
from cryptopulse.common.security.identity import caller
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.query_history import HistoryQueries
from cryptopulse.indicators.domain.registry import (
    DEFINITIONS,
    OUTPUTS,
    BadParameterError,
    Definition,
    UnknownIndicatorError,
    find,
)
from cryptopulse.indicators.domain.study import Study
from cryptopulse.indicators.domain.ta_catalogue import TA_BY_NAME, TA_DEFINITIONS, TaDefinition
from cryptopulse.indicators.entrypoints import answers

MAX_COINS = 250


class Latest(Protocol):
    """Latest values. Raises `StoreUnavailable`."""

    async def price(self, symbol: str, source: str) -> PriceUpdate | None: ...
    async def prices(self, wanted: Sequence[tuple[str, str]]) -> list[PriceUpdate | None]: ...
    async def references(self, coin_ids: Sequence[str]) -> list[ReferencePrice | None]: ...
    async def signals(self) -> list[Signal]: ...


def price_router(
    view: CatalogueView, queries: HistoryQueries, latest: Latest, cursor: Cursor, clock: Clock
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
        more = from_ms is not None and len(rows) >= query.limit
        body = {
            "symbol": resolved.symbol,
            "interval": interval,
            "source": source,
            "data": [answers.candle_body(row) for row in rows],
            "next_cursor": cursor.encode((next_open(rows[-1].open_time, interval),), binding)
            if more
            else None,
        }
        return answers.answer(body)

    return router


def indicator_router(
    view: CatalogueView, queries: HistoryQueries, latest: Latest, cursor: Cursor, clock: Clock
) -> APIRouter:
    """Routes of indicators and signals."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/indicators")
    async def catalogue() -> Response:
        ours = [_definition(one) for one in DEFINITIONS]
        theirs = [_ta_definition(one) for one in TA_DEFINITIONS if not one.live_twin]
        return answers.answer({"data": ours + theirs, "next_cursor": None})

    @router.get("/indicators/{symbol}")
    async def values(symbol: str, query: Annotated[IndicatorQuery, Query()], request: Request) -> Response:
        resolved = view.resolve(symbol)
        ours, theirs = _split(query.names)
        names, extra = _wanted(ours, request, query.interval) if ours or not theirs else ([], {})
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
        body = answers.values_body(update, names, {}, clock.now_us())
        for definition in theirs:
            rows = await queries.by_ta(
                resolved.symbol,
                query.source or CONSOLIDATED,
                query.interval,
                definition,
                _ta_made(definition, _parameters(request, definition.name)),
                from_ms=None,
                to_ms=None,
                limit=1,
            )
            values = rows[-1][1] if rows else dict.fromkeys(definition.outputs)
            body["values"] |= values
            body["engine"] |= dict.fromkeys(values, "ta")
        return answers.answer(body)

    async def ta_history(
        symbol: str, definition: TaDefinition, query: IndicatorHistoryQuery, request: Request
    ) -> Response:
        source, interval = query.source or CONSOLIDATED, query.interval
        parameters = _ta_made(definition, _parameters(request, definition.name, plain_names=True))
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
            "data": [_point(bar, found) for bar, found in rows],
            "next_cursor": cursor.encode((next_open(rows[-1][0].open_time, interval),), binding)
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
        definition, given = _found(name, "name")
        given |= _parameters(request, definition.name, plain_names=True)
        study, parameters = _made(definition, given, interval)
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
            "data": [_point(bar, found) for bar, found in rows],
            "next_cursor": cursor.encode((next_open(rows[-1][0].open_time, interval),), binding)
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


def symbol_router(view: CatalogueView, cursor: Cursor) -> APIRouter:
    """Routes of symbols."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/symbols")
    async def symbols(query: Annotated[SymbolQuery, Query()]) -> Response:
        binding = ("symbols", query.quote or "", query.provider or "", query.q or "")
        after = str(cursor.decode(query.cursor, binding)[0]) if query.cursor else ""
        wanted = (query.q or "").lower()
        rows = []
        for pair in view.catalogue.pairs:
            if pair.symbol <= after or (query.provider and query.provider not in pair.venues):
                continue
            if query.quote and pair.symbol.partition("-")[2] != query.quote.upper():
                continue
            found = _pair_row(view, pair)
            if wanted and wanted not in pair.symbol.lower() and wanted not in (found["name"] or "").lower():
                continue
            rows.append(found)
            if len(rows) > query.limit:
                break
        page = rows[: query.limit]
        following = cursor.encode((page[-1]["symbol"],), binding) if len(rows) > query.limit else None
        return answers.answer({"data": page, "next_cursor": following})

    @router.get("/symbols/{symbol}")
    async def symbol(symbol: str) -> Response:
        resolved = view.resolve(symbol)
        pair = resolved.pair
        if pair is None:
            venues = sorted(
                {
                    venue
                    for one in view.catalogue.pairs
                    if one.symbol.startswith(f"{resolved.base}-")
                    for venue in one.venues
                }
            )
            pair = Pair(resolved.symbol, venues)
        return answers.answer(_pair_row(view, pair))

    return router


def coin_router(view: CatalogueView, latest: Latest, clock: Clock) -> APIRouter:
    """Routes of coins."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/coins/search")
    async def search(query: Annotated[CoinSearchQuery, Query()]) -> Response:
        coins = view.search(query.q, query.limit)
        found = [
            {
                "id": coin.id,
                "name": coin.name,
                "symbol": coin.symbol,
                "thumb": coin.image,
                "market_cap_rank": coin.market_cap_rank,
            }
            for coin in coins
        ]
        return answers.answer({"coins": found})

    @router.get("/coins")
    async def coin_prices(query: Annotated[CoinPriceQuery, Query()]) -> Response:
        ids = list(dict.fromkeys(one.strip().lower() for one in query.ids.split(",") if one.strip()))
        if len(ids) > MAX_COINS:
            raise Invalid(
                "too many ids", errors=(FieldError("ids", "too-many", f"give at most {MAX_COINS}"),)
            )
        known = {coin_id: coin for coin_id in ids if (coin := view.resolver.coin(coin_id)) is not None}
        owners = {coin: asset for asset, coin in view.catalogue.asset_coins.items()}
        symbols = [(f"{owners[coin_id]}-USD", CONSOLIDATED) for coin_id in ids if coin_id in owners]
        updates = await latest.prices(symbols)
        by_symbol = {update.symbol: update for update in updates if update is not None}
        references = dict(zip(ids, await latest.references(ids), strict=True))
        now_us = clock.now_us()
        prices = {}
        for coin_id in ids:
            update = by_symbol.get(f"{owners.get(coin_id, '')}-USD")
            reference, coin = references[coin_id], known.get(coin_id)
            if coin is None and reference is None:
                continue
            prices[coin_id] = _coin_price(coin_id, coin, update, reference, now_us)
        unknown = [coin_id for coin_id in ids if coin_id not in prices]
        return answers.answer({"prices": prices, "unknown": unknown})

    return router


def _pair_row(view: CatalogueView, pair: Pair) -> dict[str, Any]:
    base, _, quote = pair.symbol.partition("-")
    coin_id = view.catalogue.asset_coins.get(base)
    coin = view.resolver.coin(coin_id) if coin_id else None
    return {
        "symbol": pair.symbol,
        "base": base,
        "quote": quote,
        "providers": pair.venues,
        "price_precision": pair.precision,
        "status": pair.status,
        "coin_id": coin_id,
        "name": coin.name if coin else None,
        "market_cap_rank": coin.market_cap_rank if coin else None,
    }


def _coin_price(
    coin_id: str, coin: Coin | None, update: PriceUpdate | None, reference: ReferencePrice | None, now_us: int
) -> dict[str, Any]:
    """Ours where it is not stale, else CoinGecko's, else what the catalogue last heard."""
    body: dict[str, Any] = {
        "id": coin_id,
        "symbol": (coin.symbol if coin else reference.symbol if reference else "").lower(),
        "name": coin.name if coin else coin_id,
        "image": coin.image if coin else None,
        "market_cap_rank": coin.market_cap_rank if coin else None,
        "market_cap": answers.text(reference.market_cap if reference else coin.market_cap if coin else None),
        "volume_24h": answers.text(reference.volume_24h if reference else coin.volume_24h if coin else None),
    }
    ours = update is not None and not is_stale(update.received_us, now_us)
    if update is not None and (ours or reference is None):
        before = None
        if update.change_24h_pct is not None:
            before = update.price - update.price / (1 + update.change_24h_pct / 100)
        elif reference is not None:
            before = reference.change_24h
        change = (
            update.change_24h_pct
            if update.change_24h_pct is not None
            else reference.change_24h_pct
            if reference
            else None
        )
        return body | {
            "current_price": plain(update.price),
            "price_change_24h": None if before is None else plain(round(before, 8)),
            "price_change_percentage_24h": answers.text(change),
            "last_updated": update.event_us // 1000,
            "status": update.status if ours else "stale",
            "source": update.source,
            "stale": not ours,
            "age_ms": age_ms(update.received_us, now_us),
            "simulated": update.simulated,
        }
    if reference is not None:
        return body | {
            "current_price": plain(reference.price),
            "price_change_24h": answers.text(reference.change_24h),
            "price_change_percentage_24h": answers.text(reference.change_24h_pct),
            "last_updated": reference.updated_us // 1000,
            "status": "fallback",
            "source": "coingecko",
            "stale": now_us - reference.received_us > 900_000_000,
            "age_ms": age_ms(reference.received_us, now_us),
            "simulated": False,
        }
    assert coin is not None
    updated = coin.updated_us
    return body | {
        "current_price": answers.text(coin.price),
        "price_change_24h": answers.text(coin.change_24h),
        "price_change_percentage_24h": answers.text(coin.change_24h_pct),
        "last_updated": None if updated is None else updated // 1000,
        "status": None if coin.price is None else "fallback",
        "source": None if coin.price is None else "coingecko",
        "stale": True,
        "age_ms": None if updated is None else age_ms(updated, now_us),
        "simulated": False,
    }


# --- names and parameters of indicators --------------------------------------------------------------------------


def _found(name: str, parameter: str) -> tuple[Definition, dict[str, float]]:
    try:
        return find(name)
    except UnknownIndicatorError as error:
        raise Invalid(
            str(error), code="unknown-indicator", errors=(FieldError(parameter, "unknown", str(error)),)
        ) from error


def _made(
    definition: Definition, given: dict[str, float], interval: Interval
) -> tuple[Study, dict[str, float]]:
    try:
        return definition.make(interval, given), definition.checked(given)
    except BadParameterError as error:
        raise Invalid(
            str(error), code="bad-parameter", errors=(FieldError(definition.name, "parameter", str(error)),)
        ) from error


KNOWN_PARAMETERS = frozenset(
    {"interval", "names", "source", "closed", "from", "to", "limit", "cursor", "engine"}
)


def _parameters(request: Request, name: str, *, plain_names: bool = False) -> dict[str, float]:
    """Parameters of an indicator in the query: `rsi.period=7`, and `period=7` where only one indicator is asked for."""
    found = {}
    for key, value in request.query_params.items():
        if key in KNOWN_PARAMETERS:
            continue
        owner, dot, parameter = key.rpartition(".")
        if (dot and owner == name) or (not dot and plain_names):
            try:
                found[parameter] = float(value)
            except ValueError as error:
                raise Invalid(
                    f"{key} is not a number", errors=(FieldError(key, "number", "give a number"),)
                ) from error
        elif not dot:
            raise Invalid(
                f"unknown parameter {key}", errors=(FieldError(key, "unknown", "see GET /indicators"),)
            )
    return found


def _wanted(
    names: str | None, request: Request, interval: Interval
) -> tuple[list[str] | None, dict[str, Study]]:
    """Outputs asked for (None: all), and studies that are not part of the live set."""
    asked = [name.strip() for name in (names or "").split(",") if name.strip()]
    owners = {key.rpartition(".")[0] for key in request.query_params if "." in key}
    if not asked and not owners:
        _parameters(request, "")
        return None, {}
    outputs: list[str] = []
    extra: dict[str, Study] = {}
    for name in asked or sorted(owners):
        if name in OUTPUTS:
            _parameters(request, name)
            if name not in owners:
                outputs.append(name)
                continue
        definition, given = _found(name, "names")
        given |= _parameters(request, definition.name) | _parameters(request, name)
        if not given:
            outputs += [one for live in definition.live for one in definition.make(interval, live).outputs]
            continue
        study, _ = _made(definition, given, interval)
        outputs += study.outputs
        if not set(study.outputs) <= set(OUTPUTS) or given:
            extra[name] = study
    return list(dict.fromkeys(outputs)), extra


def _definition(definition: Definition) -> dict[str, Any]:
    live = [definition.make("1h", given) for given in definition.live]
    return {
        "name": definition.name,
        "title": definition.title,
        "outputs": [output for study in live for output in study.outputs],
        "parameters": [
            {
                "name": parameter.name,
                "default": parameter.default,
                "minimum": parameter.minimum,
                "maximum": parameter.maximum,
                "integer": parameter.integer,
            }
            for parameter in definition.parameters
        ],
        "formula": definition.formula,
        "needed": max(study.needed for study in live),
        "engine": "cryptopulse",
        "live": True,
    }


def _point(bar: Candle, values: dict[str, float | None]) -> dict[str, Any]:
    return {"open_time": bar.open_time, "close": plain(bar.close), "values": values}


def _split(names: str | None) -> tuple[str | None, list[TaDefinition]]:
    """Names that are ours, and indicators that only `ta` computes."""
    asked = [name.strip() for name in (names or "").split(",") if name.strip()]
    theirs = [
        one for name in asked if (one := TA_BY_NAME.get(name.lower())) is not None and not one.live_twin
    ]
    ours = [name for name in asked if name.lower() not in {one.name for one in theirs}]
    return (",".join(ours) or None), theirs


def _ta_made(definition: TaDefinition, given: dict[str, float]) -> dict[str, float]:
    try:
        return definition.checked(given)
    except BadParameterError as error:
        raise Invalid(
            str(error), code="bad-parameter", errors=(FieldError(definition.name, "parameter", str(error)),)
        ) from error


def _ta_definition(definition: TaDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "title": definition.title,
        "outputs": list(definition.outputs),
        "parameters": [
            {
                "name": parameter.name,
                "default": parameter.default,
                "minimum": parameter.minimum,
                "maximum": parameter.maximum,
                "integer": parameter.integer,
            }
            for parameter in definition.parameters
        ],
        "formula": "as the ta package 0.11 computes it",
        "needed": definition.least,
        "engine": "ta",
        "live": False,
    }
