"""Kraken's wire models, WebSocket v2 and public REST; its JSON numbers are decoded to decimals from their text."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec

from cryptopulse.common.contracts.values import MAX_DECIMALS
from cryptopulse.ingestor.domain.numbers import AtSeconds, Whole


class TradeRow(msgspec.Struct, gc=False):
    """A trade of the `trade` channel; `side` is the taker's."""

    symbol: str
    side: str
    price: Decimal
    qty: Decimal
    trade_id: Whole
    timestamp: str


class TickerRow(msgspec.Struct, gc=False):
    """A product of the `ticker` channel; without a time in most answers."""

    symbol: str
    bid: Decimal
    bid_qty: Decimal
    ask: Decimal
    ask_qty: Decimal
    timestamp: str = ""


class Result(msgspec.Struct):
    """What was subscribed, one answer per pair."""

    channel: str = ""
    symbol: str = ""


class Envelope(msgspec.Struct):
    """Every message: market data by `channel`, answers by `method`."""

    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    method: str = ""
    success: bool = True
    error: str | None = None
    symbol: str = ""
    result: Result | None = None


class AssetPair(msgspec.Struct):
    """An entry of `AssetPairs`."""

    altname: str
    wsname: str = ""
    status: str = "online"
    tick_size: str = ""
    lot_decimals: Annotated[int, msgspec.Meta(ge=0, le=MAX_DECIMALS)] = 8


class DayTicker(msgspec.Struct):
    """An entry of `Ticker`: volume and average price, each of today and of the last 24 hours."""

    v: tuple[str, str]
    p: tuple[str, str]


class Answer(msgspec.Struct):
    """Every REST answer: errors may come with status 200. `result` holds one list by the pair's long name, and `last`."""

    error: list[str] = []
    result: dict[str, msgspec.Raw] = {}


class RestTrade(msgspec.Struct, array_like=True):
    """A row of `Trades`: price, volume, time in seconds, taker's side, order type, misc, id."""

    price: str
    volume: str
    at_s: Decimal
    side: str
    order: str
    misc: str
    trade_id: Whole


class Bar(msgspec.Struct, array_like=True):
    """A row of `OHLC`; minutes without trades are flat rows with count 0."""

    at_s: AtSeconds
    open: str
    high: str
    low: str
    close: str
    vwap: str
    volume: str
    count: Whole
