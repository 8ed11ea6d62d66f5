"""Prices: the hot read from memory as ready-made bytes, bulk reads, and the cold way through Redis."""

from __future__ import annotations

from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from cryptopulse.common.contracts.http.prices import Price, PriceQuery
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.prices import age_ms
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.errors import (
    CryptoPulseError,
    FieldError,
    Invalid,
    NotFound,
    Refused,
    UpstreamUnavailable,
)
from cryptopulse.gateway.application.market import Quoted
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import price_body
from cryptopulse.gateway.entrypoints.http.operations import Call, Operation

CACHE_CONTROL: Final = "public, max-age=1, stale-while-revalidate=5"
BULK_MAX: Final = 250
VARY: Final = "Accept-Encoding, Origin"


class StalePrice(UpstreamUnavailable):
    """The newest price is older than the caller takes."""


class BulkQuery(BaseModel):
    """Which symbols."""

    model_config = ConfigDict(extra="forbid")

    symbols: str = Field(
        max_length=8_000, description="Comma list of up to 250 symbols.", examples=["BTC-USD,ETH-USD"]
    )


class BulkError(BaseModel):
    """Why one of the symbols has no price."""

    symbol: str
    code: Annotated[str, Field(examples=["unknown-symbol"])]
    detail: str


class BulkPrices(BaseModel):
    """Prices of the symbols that could be served, and what went wrong with the others."""

    data: list[Price]
    errors: list[BulkError]
    next_cursor: str | None = None


async def quoted(use: UseCases, name: str, source: str | None) -> Quoted:
    """The newest price of whatever `name` means: from memory, else from Redis. Raises `NotFound`."""
    symbol = use.market.resolve(name).symbol
    found = use.market.ready(symbol, source)
    if found is not None:
        return found
    for candidate in (source,) if source is not None else (CONSOLIDATED,):
        stored = await use.prices.load(symbol, candidate)
        if stored is not None:
            use.market.apply(stored)
    found = use.market.ready(symbol, source)
    if found is None:
        what = f"{symbol} from {source}" if source else symbol
        known = sorted(use.market.sources(symbol))
        hint = f"; sources with a price: {', '.join(known)}" if known and source else ""
        raise NotFound(f"there is no price of {what} (yet){hint}", code="no-price")
    return found


async def get_price(use: UseCases, call: Call) -> Response:
    """The newest price of one symbol."""
    query = call.query_model(PriceQuery)
    found = await quoted(use, call.params["symbol"], query.source)
    now = use.clock.now_us()
    if query.max_age_ms is not None and age_ms(found.update.received_us, now) > query.max_age_ms:
        age = age_ms(found.update.received_us, now)
        return _too_old(call, age, query.max_age_ms)
    tag = price_body.etag(found.update, now).decode()
    headers = {"ETag": tag, "Cache-Control": CACHE_CONTROL, "Vary": VARY}
    if call.header("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body(now), headers=headers, media_type="application/json")


def _too_old(call: Call, age: int, limit: int) -> Response:
    from cryptopulse.common.web.problems import problem_response

    return problem_response(
        503,
        request=call.request,
        code="stale-price",
        title="Stale price",
        detail=f"the newest price is {age} ms old, more than max_age_ms={limit}",
        retry_after_seconds=1,
    )


async def get_prices(use: UseCases, call: Call) -> Response:
    """The newest prices of many symbols; one that fails does not spoil the others."""
    names = [name.strip() for name in call.query_model(BulkQuery).symbols.split(",") if name.strip()]
    if not names or len(names) > BULK_MAX:
        fix = f"names 1 to {BULK_MAX} symbols"
        raise Invalid(f"symbols {fix}", errors=(FieldError("symbols", "invalid", fix),))
    await use.limits.count(call.identity, call.address, "reads", len(names) / 25)
    now = use.clock.now_us()
    rows: list[bytes] = []
    errors: list[dict[str, str]] = []
    for name in dict.fromkeys(names):
        try:
            rows.append((await quoted(use, name, None)).body(now))
        except Refused as error:
            errors.append({"symbol": name, "code": error.code, "detail": error.detail})
        except CryptoPulseError:
            errors.append({"symbol": name, "code": "unavailable", "detail": "cannot be read at the moment"})
    body = b'{"data":[%b],"errors":%b,"next_cursor":null}' % (b",".join(rows), orjson.dumps(errors))
    return Response(
        body, headers={"Cache-Control": CACHE_CONTROL, "Vary": VARY}, media_type="application/json"
    )


GET_PRICE: Final = Operation(
    RouteSpec(
        "GET",
        "/v1/prices/{symbol}",
        "get_price",
        "Newest price of a symbol",
        None,
        1,
        None,
        Price,
        query=PriceQuery,
        tags=("prices",),
        errors=(400, 401, 404, 422, 429, 503),
        description="`X-USD` is consolidated over all venues and quotes. A traded pair is also served per venue "
        "(`?source=binance`); without a source the venue with the most volume answers, else the cross rate.",
    ),
    get_price,
    aliases=("/prices/{symbol}",),
)

OPERATIONS: Final = (
    GET_PRICE,
    Operation(
        RouteSpec(
            "GET",
            "/v1/prices",
            "list_prices",
            "Newest prices of many symbols",
            None,
            1,
            None,
            BulkPrices,
            query=BulkQuery,
            tags=("prices",),
            errors=(400, 401, 422, 429, 503),
        ),
        get_prices,
    ),
)
