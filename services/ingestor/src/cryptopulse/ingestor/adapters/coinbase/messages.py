"""Wire models of Coinbase Advanced Trade, socket and public REST; fields that we do not read are not named."""

from __future__ import annotations

from typing import Annotated

import msgspec


class TradeRow(msgspec.Struct, gc=False):
    """One trade of `market_trades` and of the REST ticker. `side` is the MAKER's, upper case."""

    product_id: str
    trade_id: str
    price: str
    size: str
    time: str
    side: str = ""


class TradesEvent(msgspec.Struct, gc=False):
    """`snapshot` at the subscription (newest 100 of one product), then `update`; newest first in both."""

    type: str
    trades: list[TradeRow] = []


class TickerRow(msgspec.Struct, gc=False):
    """One product of `ticker`; the book is missing in `ticker_batch`."""

    product_id: str
    best_bid: str = ""
    best_ask: str = ""
    best_bid_quantity: str = ""
    best_ask_quantity: str = ""


class TickerEvent(msgspec.Struct, gc=False):
    """A snapshot or update of tickers; it has no time but the envelope's."""

    type: str
    tickers: list[TickerRow] = []


class SubscriptionsEvent(msgspec.Struct):
    """The full list of what this connection gets, by channel."""

    subscriptions: dict[str, list[str]] = {}


class Envelope(msgspec.Struct):
    """Every message. `sequence_num` rises by 1 per connection over all channels. Errors come as `type`."""

    channel: str = ""
    timestamp: str = ""
    sequence_num: Annotated[int, msgspec.Meta(ge=-1, lt=10**18)] = -1
    events: msgspec.Raw = msgspec.Raw(b"[]")
    type: str = ""
    message: str = ""


class Product(msgspec.Struct):
    """A row of `/market/products`."""

    product_id: str
    base_currency_id: str
    quote_currency_id: str
    base_increment: str = ""
    price_increment: str = ""
    status: str = "online"
    trading_disabled: bool = False
    is_disabled: bool = False
    view_only: bool = False
    cancel_only: bool = False
    auction_mode: bool = False
    alias: str = ""
    product_type: str = "SPOT"
    approximate_quote_24h_volume: str = ""


class Products(msgspec.Struct):
    """`GET /market/products`: `Product`s."""

    products: list[msgspec.Raw]


class CandleRow(msgspec.Struct):
    """A bar of `/market/products/{id}/candles`; `start` is unix seconds as text."""

    start: str
    low: str
    high: str
    open: str
    close: str
    volume: str


class Candles(msgspec.Struct):
    """`GET /market/products/{id}/candles`: `CandleRow`s, newest first."""

    candles: list[msgspec.Raw]


class RecentTrades(msgspec.Struct):
    """`GET /market/products/{id}/ticker`: `TradeRow`s, newest first."""

    trades: list[msgspec.Raw]
