"""Wire models of Coinbase Exchange, socket and REST; fields that we do not read are not named."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from cryptopulse.ingestor.domain.numbers import AtSeconds, Whole


class Event(msgspec.Struct, gc=False):
    """Every message of the socket, told apart by `type`. `side` of a match is the MAKER's."""

    type: str = ""
    product_id: str = ""
    trade_id: Whole = 0
    last_trade_id: Whole = 0
    price: str = ""
    size: str = ""
    side: str = ""
    time: str = ""
    best_bid: str = ""
    best_ask: str = ""
    best_bid_size: str = ""
    best_ask_size: str = ""
    message: str = ""
    reason: str = ""


class Channel(msgspec.Struct):
    """A channel in the list of subscriptions."""

    name: str
    product_ids: list[str] = []


class Subscriptions(msgspec.Struct):
    """The full present state."""

    channels: list[Channel] = []


class Product(msgspec.Struct):
    """A row of `/products`."""

    id: str
    base_currency: str
    quote_currency: str
    quote_increment: str = ""
    base_increment: str = ""
    status: str = "online"
    trading_disabled: bool = False
    cancel_only: bool = False
    auction_mode: bool = False


class RestTrade(msgspec.Struct):
    """A row of `/products/{id}/trades`, newest first; `side` is the MAKER's."""

    trade_id: Whole
    side: str
    size: str
    price: str
    time: str


class Stats(msgspec.Struct):
    """`/products/{id}/stats`: the volume of a day in base units and the last price."""

    volume: str = "0"
    last: str = "0"


class Bar(msgspec.Struct, array_like=True):
    """A row of `/products/{id}/candles`: numbers, LOW and HIGH before OPEN and CLOSE."""

    at_s: AtSeconds
    low: Decimal
    high: Decimal
    open: Decimal
    close: Decimal
    volume: Decimal
