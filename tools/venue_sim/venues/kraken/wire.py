"""Kraken's names and payloads, WebSocket v1 (arrays, no trade ids) and v2 (objects, numbers)."""

from __future__ import annotations

import time
from typing import Any, Final

from tools.venue_sim.market.pair import DayStats, Pair
from tools.venue_sim.market.tape import Trade

_LEGACY: Final = frozenset({"XBT", "ETH", "LTC", "XRP", "XLM", "ETC", "XMR"})
_FIAT: Final = frozenset({"USD", "EUR"})


def alt_name(pair: Pair) -> str:
    """The pair without a slash: XBTUSD."""
    return pair.instrument.native.replace("/", "")


def key_name(pair: Pair) -> str:
    """The pair's key in REST answers: XXBTZUSD for the old assets against money, the short name else."""
    base, quote = pair.instrument.native.split("/")
    if base in _LEGACY and quote in _FIAT:
        return f"X{base}Z{quote}"
    return base + quote


def seconds_text(at_us: int) -> str:
    """Unix seconds with microseconds."""
    return f"{at_us // 1_000_000}.{at_us % 1_000_000:06d}"


def iso_text(at_us: int) -> str:
    """RFC 3339 with microseconds."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_us // 1_000_000))
    return f"{moment}.{at_us % 1_000_000:06d}Z"


def v1_trade(pair: Pair, trade: Trade) -> list[str]:
    """One trade of a v1 message: price, volume, time, the taker's side, order type, nothing."""
    _, price, size, at_us, sold = trade
    return [
        pair.price_text(price),
        pair.size_text(size, 8),
        seconds_text(at_us),
        "s" if sold else "b",
        "m",
        "",
    ]


def v2_trade(pair: Pair, trade: Trade) -> dict[str, Any]:
    """One trade of a v2 message."""
    made, price, size, at_us, sold = trade
    return {
        "symbol": v2_name(pair),
        "side": "sell" if sold else "buy",
        "price": float(pair.price_text(price)),
        "qty": float(pair.size_text(size)),
        "ord_type": "market",
        "trade_id": made,
        "timestamp": iso_text(at_us),
    }


def v2_name(pair: Pair) -> str:
    """v2 writes the common names: BTC/USD."""
    return f"{pair.instrument.base}/{pair.instrument.quote}"


def _weighted(pair: Pair, stats: DayStats) -> str:
    value = stats.quote_volume // stats.volume if stats.volume else stats.last
    return pair.price_text(value)


def v1_ticker(pair: Pair, stats: DayStats) -> dict[str, Any]:
    """The body of a v1 ticker; the first of two numbers is today's, the second the last 24 hours'."""
    price = pair.price_text

    def size(value: int) -> str:
        return pair.size_text(value, 8)

    weighted = _weighted(pair, stats)
    return {
        "a": [price(pair.ask), int(pair.ask_size // pair.size_scale), size(pair.ask_size)],
        "b": [price(pair.bid), int(pair.bid_size // pair.size_scale), size(pair.bid_size)],
        "c": [price(stats.last), size(stats.last_size)],
        "v": [size(stats.volume), size(stats.volume)],
        "p": [weighted, weighted],
        "t": [stats.trades, stats.trades],
        "l": [price(stats.low), price(stats.low)],
        "h": [price(stats.high), price(stats.high)],
        "o": [price(stats.open), price(stats.open)],
    }


def v2_ticker(pair: Pair, stats: DayStats) -> dict[str, Any]:
    """One row of a v2 ticker."""
    return {
        "symbol": v2_name(pair),
        "bid": float(pair.price_text(pair.bid)),
        "bid_qty": float(pair.size_text(pair.bid_size)),
        "ask": float(pair.price_text(pair.ask)),
        "ask_qty": float(pair.size_text(pair.ask_size)),
        "last": float(pair.price_text(stats.last)),
        "volume": float(pair.size_text(stats.volume)),
        "vwap": float(_weighted(pair, stats)),
        "low": float(pair.price_text(stats.low)),
        "high": float(pair.price_text(stats.high)),
        "change": float(pair.price_text(stats.last - stats.open)),
        "change_pct": round((stats.last - stats.open) / stats.open * 100, 2) if stats.open else 0.0,
    }


def asset_pair(pair: Pair) -> dict[str, Any]:
    """An entry of `AssetPairs`."""
    base, quote = pair.instrument.native.split("/")
    legacy = base in _LEGACY and quote in _FIAT
    return {
        "altname": alt_name(pair),
        "wsname": pair.instrument.native,
        "aclass_base": "currency",
        "base": f"X{base}" if legacy else base,
        "aclass_quote": "currency",
        "quote": f"Z{quote}" if quote in _FIAT else quote,
        "lot": "unit",
        "cost_decimals": 5,
        "pair_decimals": pair.instrument.price_decimals,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.4]],
        "fees_maker": [[0, 0.25]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.0001",
        "costmin": "0.5",
        "tick_size": pair.price_text(1),
        "status": "online" if pair.status == "TRADING" else "cancel_only",
    }
