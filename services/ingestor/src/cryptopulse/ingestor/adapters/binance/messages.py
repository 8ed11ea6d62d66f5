"""Binance's wire models, as documented in its spot API pages; fields that we do not read are not named."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cryptopulse.ingestor.domain.numbers import AtMs, Whole


class TradeEvent(msgspec.Struct, gc=False):
    """`<symbol>@trade`. `m`: the buyer was the maker. `T`: time of the trade, ms or us by the URL's `timeUnit`."""

    s: str
    t: Whole
    p: str
    q: str
    T: int
    m: bool


class BookTickerEvent(msgspec.Struct, gc=False):
    """`<symbol>@bookTicker`: no event name and no time."""

    s: str
    b: str
    B: str
    a: str
    A: str


class CombinedTrade(msgspec.Struct, gc=False):
    """A trade in the envelope of a combined stream."""

    data: TradeEvent


class CombinedBookTicker(msgspec.Struct, gc=False):
    """A best bid and offer in the envelope of a combined stream."""

    data: BookTickerEvent


class ErrorBody(msgspec.Struct):
    """What a refused request says, on the socket and in REST bodies."""

    code: int | None = None
    msg: str = ""


class Header(msgspec.Struct):
    """Everything that is neither trade nor book ticker: read loosely, to tell its kind."""

    stream: str = ""
    e: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: ErrorBody | None = None


class EventName(msgspec.Struct):
    """The event name inside an envelope."""

    e: str = ""


class RateLimit(msgspec.Struct, rename="camel"):
    """A limit of `exchangeInfo`."""

    rate_limit_type: str
    interval: str
    interval_num: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    limit: Annotated[int, msgspec.Meta(ge=1, lt=10**9)]


class Filter(msgspec.Struct, rename="camel"):
    """A filter of a symbol; only the increments are read."""

    filter_type: str
    tick_size: str | None = None
    step_size: str | None = None


class SymbolInfo(msgspec.Struct, rename="camel"):
    """One row of `exchangeInfo.symbols`."""

    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    filters: list[Filter] = []


class ExchangeInfo(msgspec.Struct, rename="camel"):
    """`GET /exchangeInfo`. Its rows are read one by one: `SymbolInfo`, `RateLimit`."""

    symbols: list[msgspec.Raw]
    rate_limits: list[msgspec.Raw] = []


class RestTrade(msgspec.Struct, rename="camel"):
    """A row of `/historicalTrades` and `/trades`."""

    id: Whole
    price: str
    qty: str
    time: int
    is_buyer_maker: bool


class RestAggTrade(msgspec.Struct):
    """A row of `/aggTrades`: one taker order at one price; trades `f..l`."""

    a: Whole
    p: str
    q: str
    f: Whole
    l: Whole  # noqa: E741 - the venue's name
    T: int
    m: bool


class DayVolume(msgspec.Struct, rename="camel"):
    """A row of `/ticker/24hr`; only the volume in quote units is read."""

    symbol: str
    quote_volume: str


class Kline(msgspec.Struct, array_like=True):
    """A row of `/klines`, positional."""

    open_ms: AtMs
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_ms: int
    quote_volume: str
    trades: Whole
    taker_buy_volume: str
