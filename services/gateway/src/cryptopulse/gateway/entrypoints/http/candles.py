"""Candles in other forms than our JSON: columns, CSV, Lightweight Charts. The rows come from the indicators service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from pydantic import BaseModel, Field, RootModel
from starlette.responses import Response

from cryptopulse.common.contracts.http.candles import CandlePage, CandleQuery
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import charts
from cryptopulse.gateway.entrypoints.http.forward import respond
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, json_response

PATHS: Final = frozenset({"/candles/{symbol}", "/prices/{symbol}/history"})


class FormattedCandleQuery(CandleQuery):
    """A range of candles and the form of the answer."""

    format: Literal["json", "columns", "csv", "lwc"] = Field(
        "json",
        description="`columns`: one list per field; `csv`: text; `lwc`: as Lightweight Charts takes it.",
    )


class CandleColumnData(BaseModel):
    """One list per field, all of the same length."""

    open_time: list[int]
    open: list[str]
    high: list[str]
    low: list[str]
    close: list[str]
    volume: list[str]
    quote_volume: list[str]
    trades: list[int]
    taker_buy_volume: list[str]
    closed: list[bool]
    complete: list[bool]
    revision: list[int]


class CandleColumns(BaseModel):
    """A page of candles by column."""

    symbol: str
    interval: str
    source: str
    data: CandleColumnData
    next_cursor: str | None = None


class LightweightBar(BaseModel):
    """A bar of Lightweight Charts; `time` in seconds, `value` the volume."""

    time: int
    open: float
    high: float
    low: float
    close: float
    value: float


class Candles(RootModel[CandlePage | CandleColumns | list[LightweightBar]]):
    """Candles in the form that `format` asked for."""


def formatted(spec: RouteSpec) -> RouteSpec:
    """The spec of a candle endpoint with `format`."""
    return replace(
        spec,
        query=FormattedCandleQuery,
        response=Candles,
        response_media_types=("application/json", "text/csv"),
    )


def handler(path: str) -> Handler:
    """The handler of a candle endpoint of the indicators service."""

    async def candles(use: UseCases, call: Call) -> Response:
        pairs = parse_qsl(call.query, keep_blank_values=True)
        query = call.query_model(FormattedCandleQuery)
        symbol = use.market.resolve(call.params["symbol"]).symbol
        await use.limits.count(call.identity, call.address, "reads", query.limit / 500)
        answer = await use.services.call(
            "indicators",
            "GET",
            path.replace("{symbol}", quote(symbol, safe="")),
            identity=call.identity,
            query=urlencode([(name, value) for name, value in pairs if name != "format"]),
        )
        if query.format == "json" or answer.status != 200:
            return respond(answer, call)
        page = orjson.loads(answer.body)
        kept = {name: value for name, value in answer.headers.items() if name == "cache-control"}
        if query.format == "csv":
            kept["Content-Disposition"] = f'attachment; filename="{symbol}-{query.interval}.csv"'
            return Response(charts.csv(page), headers=kept, media_type="text/csv")
        body: Any = charts.columns(page) if query.format == "columns" else charts.lightweight(page)
        return json_response(body, headers=kept)

    return candles


async def bars(
    use: UseCases,
    identity: Identity,
    symbol: str,
    *,
    interval: str,
    limit: int,
    from_ms: int | None = None,
    to_ms: int,
) -> list[dict[str, Any]]:
    """Up to `limit` (<= 1,000) candles before `to_ms`, the newest; from `from_ms` on, the oldest, when it is given."""
    query: dict[str, Any] = {"interval": interval, "limit": limit, "to": to_ms}
    if from_ms is not None:
        query["from"] = from_ms
    path = f"/candles/{quote(symbol, safe='')}"
    answer = await use.services.call("indicators", "GET", path, identity=identity, query=urlencode(query))
    if answer.status == 404:
        return []
    if answer.status != 200:
        raise UpstreamUnavailable(f"candles could not be read ({answer.status})")
    found: list[dict[str, Any]] = orjson.loads(answer.body)["data"]
    return found
