"""Binance's payloads: byte formats for the hot streams, plain values for the rest. Numbers are text with 8 decimals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tools.venue_sim.market import bars
from tools.venue_sim.market.pair import DayStats, Pair, Quote
from tools.venue_sim.market.tape import Trade

BOOLEAN = {True: b"true", False: b"false"}


@dataclass(frozen=True, slots=True)
class HotFormats:
    """Byte formats of one pair's `trade`, `aggTrade` and `bookTicker`; `%` with integers makes a payload."""

    trade: bytes
    agg_trade: bytes
    book_ticker: bytes

    def combined(self, native: str) -> HotFormats:
        """The same inside the combined stream's envelope."""
        name = native.lower()
        return HotFormats(
            envelope(f"{name}@trade", self.trade),
            envelope(f"{name}@aggTrade", self.agg_trade),
            envelope(f"{name}@bookTicker", self.book_ticker),
        )


def envelope(stream: str, data: bytes) -> bytes:
    """A payload as `/stream` sends it."""
    return b'{"stream":"' + stream.encode() + b'","data":' + data + b"}"


def _number_format(decimals: int) -> str:
    digits = max(1, decimals)
    return f"%d.%0{digits}d{'0' * (8 - digits)}"


def hot_formats(pair: Pair) -> HotFormats:
    """The formats of a pair, raw."""
    price = _number_format(pair.instrument.price_decimals)
    size = _number_format(pair.instrument.size_decimals)
    native = pair.instrument.native
    trade = f'{{"e":"trade","E":%d,"s":"{native}","t":%d,"p":"{price}","q":"{size}","T":%d,"m":%b,"M":true}}'
    agg_trade = (
        f'{{"e":"aggTrade","E":%d,"s":"{native}","a":%d,"p":"{price}","q":"{size}",'
        f'"f":%d,"l":%d,"T":%d,"m":%b,"M":true}}'
    )
    book = f'{{"u":%d,"s":"{native}","b":"{price}","B":"{size}","a":"{price}","A":"{size}"}}'
    return HotFormats(trade.encode(), agg_trade.encode(), book.encode())


def trade_payload(pair: Pair, form: bytes, trade: Trade, event: int, divisor: int) -> bytes:
    """A `trade` event. `event` and the trade's time are in the connection's unit: divisor 1000 for ms, 1 for µs."""
    made, price, size, at_us, sold = trade
    ps, ss = pair.price_scale, pair.size_scale
    return form % (
        event,
        made,
        price // ps,
        price % ps,
        size // ss,
        size % ss,
        at_us // divisor,
        BOOLEAN[sold],
    )


def agg_trade_payload(pair: Pair, form: bytes, trade: Trade, event: int, divisor: int) -> bytes:
    """An `aggTrade` event: in this market every trade is an aggregate of its own."""
    made, price, size, at_us, sold = trade
    ps, ss = pair.price_scale, pair.size_scale
    return form % (
        event, made, price // ps, price % ps, size // ss, size % ss, made, made, at_us // divisor, BOOLEAN[sold],
    )  # fmt: skip


def book_ticker_payload(quote: Quote, form: bytes) -> bytes:
    """A `bookTicker` event."""
    pair, update_id, bid, bid_size, ask, ask_size = quote
    ps, ss = pair.price_scale, pair.size_scale
    return form % (
        update_id, bid // ps, bid % ps, bid_size // ss, bid_size % ss,
        ask // ps, ask % ps, ask_size // ss, ask_size % ss,
    )  # fmt: skip


def mini_ticker(pair: Pair, stats: DayStats, event: int) -> dict[str, Any]:
    """A `24hrMiniTicker` event."""
    price, size = _texts(pair)
    return {
        "e": "24hrMiniTicker",
        "E": event,
        "s": pair.instrument.native,
        "c": price(stats.last),
        "o": price(stats.open),
        "h": price(stats.high),
        "l": price(stats.low),
        "v": size(stats.volume),
        "q": pair.quote_text(stats.quote_volume),
    }


def _texts(pair: Pair) -> tuple[Any, Any]:
    return (lambda value: pair.price_text(value, 8)), (lambda value: pair.size_text(value, 8))


def _change(pair: Pair, stats: DayStats) -> tuple[str, str, str]:
    percent = (stats.last - stats.open) / stats.open * 100 if stats.open else 0.0
    weighted = stats.quote_volume // stats.volume if stats.volume else 0
    return pair.price_text(stats.last - stats.open, 8), f"{percent:.3f}", pair.price_text(weighted, 8)


def ticker(pair: Pair, stats: DayStats, event: int, divisor: int) -> dict[str, Any]:
    """A `24hrTicker` event."""
    price, size = _texts(pair)
    change, percent, weighted = _change(pair, stats)
    unit = 1000 // divisor
    return {
        "e": "24hrTicker",
        "E": event,
        "s": pair.instrument.native,
        "p": change,
        "P": percent,
        "w": weighted,
        "x": price(stats.previous_close),
        "c": price(stats.last),
        "Q": size(stats.last_size),
        "b": price(pair.bid),
        "B": size(pair.bid_size),
        "a": price(pair.ask),
        "A": size(pair.ask_size),
        "o": price(stats.open),
        "h": price(stats.high),
        "l": price(stats.low),
        "v": size(stats.volume),
        "q": pair.quote_text(stats.quote_volume),
        "O": stats.open_ms * unit,
        "C": stats.close_ms * unit,
        "F": stats.first_id,
        "L": stats.last_id,
        "n": stats.trades,
    }


def rest_ticker(pair: Pair, stats: DayStats, *, mini: bool) -> dict[str, Any]:
    """A row of `/ticker/24hr`."""
    price, size = _texts(pair)
    change, percent, weighted = _change(pair, stats)
    row: dict[str, Any] = {"symbol": pair.instrument.native}
    if not mini:
        row |= {
            "priceChange": change,
            "priceChangePercent": percent,
            "weightedAvgPrice": weighted,
            "prevClosePrice": price(stats.previous_close),
        }
    row["lastPrice"] = price(stats.last)
    if not mini:
        row |= {
            "lastQty": size(stats.last_size),
            "bidPrice": price(pair.bid),
            "bidQty": size(pair.bid_size),
            "askPrice": price(pair.ask),
            "askQty": size(pair.ask_size),
        }
    return row | {
        "openPrice": price(stats.open),
        "highPrice": price(stats.high),
        "lowPrice": price(stats.low),
        "volume": size(stats.volume),
        "quoteVolume": pair.quote_text(stats.quote_volume),
        "openTime": stats.open_ms,
        "closeTime": stats.close_ms,
        "firstId": stats.first_id,
        "lastId": stats.last_id,
        "count": stats.trades,
    }


def flat_row(start_ms: int, close: int) -> bars.Rows:
    """The row of an interval without trades, at the last close; its ids are -1."""
    row = np.zeros((1, bars.COLUMNS), dtype=np.int64)
    row[0, bars.OPEN_TIME] = start_ms
    row[0, bars.OPEN : bars.CLOSE + 1] = close
    row[0, bars.FIRST_ID :] = -1
    return row


def kline_row(pair: Pair, row: Any, interval: str, unit: int = 1) -> list[Any]:
    """One row of `/klines`; `unit` is 1 for milliseconds, 1000 for microseconds."""
    price, size = _texts(pair)
    start = int(row[bars.OPEN_TIME])
    return [
        start * unit,
        price(int(row[bars.OPEN])),
        price(int(row[bars.HIGH])),
        price(int(row[bars.LOW])),
        price(int(row[bars.CLOSE])),
        size(int(row[bars.VOLUME])),
        bars.next_bucket(start, interval) * unit - 1,
        pair.quote_text(bars.quote_volume(row)),
        int(row[bars.TRADES]),
        size(int(row[bars.BUY_VOLUME])),
        pair.quote_text(bars.quote_volume(row, bars.BUY_QUOTE_HIGH)),
        "0",
    ]


def kline_event(
    pair: Pair, row: Any, interval: str, event: int, unit: int, *, closed: bool
) -> dict[str, Any]:
    """A `kline` event."""
    cells = kline_row(pair, row, interval, unit)
    return {
        "e": "kline",
        "E": event,
        "s": pair.instrument.native,
        "k": {
            "t": cells[0],
            "T": cells[6],
            "s": pair.instrument.native,
            "i": interval,
            "f": int(row[bars.FIRST_ID]),
            "L": int(row[bars.LAST_ID]),
            "o": cells[1],
            "c": cells[4],
            "h": cells[2],
            "l": cells[3],
            "v": cells[5],
            "n": cells[8],
            "x": closed,
            "q": cells[7],
            "V": cells[9],
            "Q": cells[10],
            "B": "0",
        },
    }


def rest_trade(pair: Pair, trade: Trade, unit: int = 1) -> dict[str, Any]:
    """A row of `/trades` and `/historicalTrades`."""
    made, price, size, at_us, sold = trade
    return {
        "id": made,
        "price": pair.price_text(price, 8),
        "qty": pair.size_text(size, 8),
        "quoteQty": pair.quote_text(price * size),
        "time": at_us if unit == 1000 else at_us // 1000,
        "isBuyerMaker": sold,
        "isBestMatch": True,
    }


def rest_agg_trade(pair: Pair, trade: Trade, unit: int = 1) -> dict[str, Any]:
    """A row of `/aggTrades`."""
    made, price, size, at_us, sold = trade
    return {
        "a": made,
        "p": pair.price_text(price, 8),
        "q": pair.size_text(size, 8),
        "f": made,
        "l": made,
        "T": at_us if unit == 1000 else at_us // 1000,
        "m": sold,
        "M": True,
    }


def exchange_symbol(pair: Pair) -> dict[str, Any]:
    """An entry of `exchangeInfo`'s symbols."""
    instrument = pair.instrument
    tick = pair.price_text(1, 8)
    step = pair.size_text(1, 8)
    return {
        "symbol": instrument.native,
        "status": pair.status,
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000000.00000000", "stepSize": step},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }  # fmt: skip


def http_date(ms: int) -> str:
    """A moment as HTTP headers write it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
