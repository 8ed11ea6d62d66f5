"""TradingView's UDF datafeed under `/udf/`: an unchanged adapter reads our candles."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.errors import Refused
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import udf
from cryptopulse.gateway.entrypoints.http.candles import bars
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, Operation, json_response

PAGE: Final = 1_000
BARS_MAX: Final = 10_000
LATEST_S: Final = 4_102_444_800
_SECONDS: Final = re.compile(r"^-?\d{1,11}(\.\d+)?$")


class UdfAnswer(RootModel[dict[str, Any] | list[Any]]):
    """A bare UDF answer."""


class UdfQuery(BaseModel):
    """What a UDF client sends; unknown parameters are ignored, as its versions differ."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    symbol: str = Field("", max_length=80, examples=["BTC-USD"])
    symbols: str = Field("", max_length=8_000)
    query: str = Field("", max_length=80)
    group: str = Field("", max_length=80)
    limit: str = Field("30", max_length=10)
    from_: str = Field("0", alias="from", max_length=20, description="Unix seconds, inclusive.")
    to: str = Field("", max_length=20, description="Unix seconds, exclusive.")
    resolution: str = Field("1D", max_length=10, examples=["60"])
    countback: str = Field(
        "", max_length=10, description="At least so many bars before `to`; counts more than `from`."
    )


def _seconds(text: str, default: int) -> int:
    """Unix seconds, kept within what a date can be."""
    if not _SECONDS.match(text):
        return default
    return max(0, min(LATEST_S, int(float(text))))


def _whole(text: str, default: int, most: int) -> int:
    return max(0, min(most, int(text))) if text.isascii() and text.isdigit() else default


def _name(use: UseCases, symbol: str) -> str | None:
    coin_id = use.market.resolve(symbol).coin_id
    coin = use.market.resolver().coin(coin_id) if coin_id else None
    return coin.name if coin is not None else None


def _plain_name(text: str) -> str:
    """`EXCHANGE:SYMBOL` means SYMBOL."""
    return text.rpartition(":")[2].strip()


async def get_config(use: UseCases, _call: Call) -> Response:
    """What the datafeed can do."""
    venues = {venue for pair in use.market.catalogue.pairs for venue in pair.venues}
    return json_response(udf.config(sorted(venues)))


async def get_time(use: UseCases, _call: Call) -> Response:
    """Our clock in seconds, as text."""
    return Response(str(use.clock.now_ms() // 1_000), media_type="text/plain")


async def get_symbols(use: UseCases, call: Call) -> Response:
    """One symbol."""
    try:
        resolved = use.market.resolve(_plain_name(call.query_model(UdfQuery).symbol))
    except Refused:
        return json_response(udf.error("unknown_symbol"))
    found = use.market.price(resolved.symbol)
    return json_response(
        udf.symbol_info(resolved, found.price if found else None, _name(use, resolved.symbol))
    )


async def get_search(use: UseCases, call: Call) -> Response:
    """Symbols whose name holds a text; exact bases first."""
    query = call.query_model(UdfQuery)
    text = query.query.strip().upper().replace("/", "-")
    limit = _whole(query.limit, 30, 200) or 30
    rows: list[tuple[int, str]] = []
    names = dict.fromkeys((*(pair.symbol for pair in use.market.catalogue.pairs), *use.market.symbols()))
    for symbol in names:
        base = symbol.partition("-")[0]
        name = (_name(use, symbol) or "").upper()
        if text in symbol or text in name:
            rows.append((0 if base == text else 1 if symbol.startswith(text) else 2, symbol))
    rows.sort()
    return json_response([udf.found(symbol, _name(use, symbol)) for _, symbol in rows[:limit]])


async def get_history(use: UseCases, call: Call) -> Response:
    """Bars before `to`: from `from` on, or the last `countback`."""
    query = call.query_model(UdfQuery)
    interval = udf.interval_of(query.resolution)
    if interval is None:
        return json_response(udf.error("unknown_resolution"))
    try:
        symbol = use.market.resolve(_plain_name(query.symbol)).symbol
    except Refused:
        return json_response(udf.error("unknown_symbol"))
    now_s = use.clock.now_ms() // 1_000
    to_ms = min(_seconds(query.to, now_s + 1), now_s + 1) * 1_000
    from_ms = _seconds(query.from_, 0) * 1_000
    count = _whole(query.countback, 0, BARS_MAX)
    rows = await _before(use, call, symbol, interval, to_ms, from_ms, count)
    if rows:
        return json_response(udf.history(rows))
    edge = min(from_ms, to_ms) if not count else to_ms
    older = await bars(use, call.identity, symbol, interval=interval, limit=1, to_ms=edge) if edge > 0 else []
    return json_response(udf.no_data(older[-1]["open_time"] if older else None))


async def _before(
    use: UseCases, call: Call, symbol: str, interval: str, to_ms: int, from_ms: int, count: int
) -> list[dict[str, Any]]:
    """Pages backwards from `to_ms` until `count` bars are there, or `from_ms` is reached."""
    rows: list[dict[str, Any]] = []
    wanted = count or BARS_MAX
    while len(rows) < wanted and to_ms > 0:
        limit = min(PAGE, wanted - len(rows))
        if rows:  # a page more costs what one of candles costs
            await use.limits.count(call.identity, call.address, "reads", limit / 500)
        page = await bars(use, call.identity, symbol, interval=interval, limit=limit, to_ms=to_ms)
        if not count:
            page = [row for row in page if row["open_time"] >= from_ms]
        rows = page + rows
        if len(page) < limit:
            break
        to_ms = page[0]["open_time"]
    return rows


async def get_quotes(use: UseCases, call: Call) -> Response:
    """Quotes of up to 100 symbols."""
    names = [name.strip() for name in call.query_model(UdfQuery).symbols.split(",") if name.strip()][:100]
    rows = []
    for name in names:
        try:
            update = use.market.price(use.market.resolve(_plain_name(name)).symbol)
        except Refused:
            update = None
        rows.append(udf.quote(name, update))
    return json_response({"s": "ok", "d": rows})


async def get_symbol_info(use: UseCases, call: Call) -> Response:
    """All symbols of a group as column arrays; what is equal for all is said once."""
    pairs = use.market.catalogue.pairs
    group = call.query_model(UdfQuery).group
    names = [pair.symbol for pair in pairs if not group or group == udf.EXCHANGE or group in pair.venues][
        :2_000
    ]
    infos = []
    for name in names:
        found = use.market.price(name)
        infos.append(
            udf.symbol_info(use.market.resolve(name), found.price if found else None, _name(use, name))
        )
    return json_response(
        {
            "symbol": [info["name"] for info in infos],
            "ticker": [info["ticker"] for info in infos],
            "description": [info["description"] for info in infos],
            "currency_code": [info["currency_code"] for info in infos],
            "pricescale": [info["pricescale"] for info in infos],
            "exchange-listed": udf.EXCHANGE,
            "exchange-traded": udf.EXCHANGE,
            "minmovement": 1,
            "minmov2": 0,
            "type": "crypto",
            "timezone": "Etc/UTC",
            "session-regular": "24x7",
            "has-intraday": True,
            "has-daily": True,
            "has-weekly-and-monthly": True,
            "supported-resolutions": list(udf.RESOLUTIONS),
        }
    )


async def get_marks(_use: UseCases, _call: Call) -> Response:
    """Marks on bars. A caller without credentials has none."""
    return json_response(
        {"id": [], "time": [], "color": [], "text": [], "label": [], "labelFontColor": [], "minSize": []}
    )


async def get_timescale_marks(_use: UseCases, _call: Call) -> Response:
    """Marks on the time scale."""
    return json_response([])


def _op(
    path: str, name: str, summary: str, handler: Handler, *, cost: float = 1, text: bool = False
) -> Operation:
    spec = RouteSpec(
        "GET",
        f"/udf/{path}",
        f"udf_{name}",
        summary,
        None,
        cost,
        None,
        UdfAnswer,
        query=None if path in {"config", "time"} else UdfQuery,
        tags=("udf",),
        errors=(401, 422, 429, 503),
        response_media_types=("text/plain",) if text else ("application/json",),
    )
    return Operation(spec, handler)


OPERATIONS: Final = (
    _op("config", "get_config", "What the datafeed can do", get_config),
    _op("time", "get_time", "Our clock in seconds", get_time, text=True),
    _op("symbols", "get_symbol", "One symbol", get_symbols),
    _op("search", "search_symbols", "Search symbols", get_search),
    _op("history", "get_history", "Bars", get_history, cost=3),
    _op("symbol_info", "list_symbols", "All symbols as columns", get_symbol_info, cost=3),
    _op("quotes", "get_quotes", "Quotes", get_quotes),
    _op("marks", "list_marks", "Marks on bars", get_marks),
    _op("timescale_marks", "list_timescale_marks", "Marks on the time scale", get_timescale_marks),
)
