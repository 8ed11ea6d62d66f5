"""Coinbase's texts and payloads in both dialects. Numbers are short decimals; `side` is the maker's unless said."""

from __future__ import annotations

import time
from typing import Any, Final

from tools.venue_sim.market.assets import asset_of
from tools.venue_sim.market.pair import DayStats, Pair, short
from tools.venue_sim.market.tape import Trade

_SEQUENCE_STEP: Final = 13
_seconds: tuple[int, str] = (0, "")


def _second_text(seconds: int) -> str:
    global _seconds  # noqa: PLW0603 - one cached second saves formatting a date for every trade
    if _seconds[0] != seconds:
        _seconds = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return _seconds[1]


def micros_text(at_us: int) -> str:
    """RFC 3339 with microseconds, as trades carry it."""
    seconds, part = divmod(at_us, 1_000_000)
    return f"{_second_text(seconds)}.{part:06d}Z"


def nanos_text(at_ns: int) -> str:
    """RFC 3339 with nanoseconds, as Advanced Trade's envelopes carry it."""
    seconds, part = divmod(at_ns, 1_000_000_000)
    return f"{_second_text(seconds)}.{part:09d}Z"


def go_time_text(at_ns: int, uptime_seconds: float) -> str:
    """Go's own time text, as Advanced Trade's heartbeats carry it."""
    seconds, part = divmod(at_ns, 1_000_000_000)
    return f"{_second_text(seconds).replace('T', ' ')}.{part:09d} +0000 UTC m=+{uptime_seconds:.9f}"


def price_text(pair: Pair, value: int) -> str:
    """A price: all decimals of its step cut to what is needed."""
    scale = pair.price_scale
    return short(f"{value // scale}.{value % scale:0{max(1, pair.instrument.price_decimals)}d}")


def size_text(pair: Pair, value: int) -> str:
    """A size without trailing zeros."""
    scale = pair.size_scale
    return short(f"{value // scale}.{value % scale:0{max(1, pair.instrument.size_decimals)}d}")


# -- Advanced Trade


def advanced_trade(pair: Pair, trade: Trade) -> str:
    """One trade inside `market_trades`; the id is text, the side the maker's in capitals."""
    made, price, size, at_us, sold = trade
    return (
        f'{{"product_id":"{pair.instrument.native}","trade_id":"{made}","price":"{price_text(pair, price)}",'
        f'"size":"{size_text(pair, size)}","time":"{micros_text(at_us)}","side":"{"BUY" if sold else "SELL"}"}}'
    )


def advanced_trades_event(pair: Pair, trades: list[Trade], kind: str) -> bytes:
    """An event of `market_trades`: newest first, as the venue sends it."""
    inner = ",".join([advanced_trade(pair, trade) for trade in reversed(trades)])
    return f'{{"type":"{kind}","trades":[{inner}]}}'.encode()


def advanced_ticker(pair: Pair, stats: DayStats, price: int, *, batch: bool) -> dict[str, Any]:
    """One ticker at the last price; `ticker_batch` has no best bid and ask."""
    change = (price - stats.open) / stats.open * 100 if stats.open else 0.0
    row = {
        "type": "ticker",
        "product_id": pair.instrument.native,
        "price": price_text(pair, price),
        "volume_24_h": size_text(pair, stats.volume),
        "low_24_h": price_text(pair, stats.low),
        "high_24_h": price_text(pair, stats.high),
        "low_52_w": price_text(pair, stats.low * 6 // 10),
        "high_52_w": price_text(pair, stats.high * 14 // 10),
        "price_percent_chg_24_h": f"{change:.14f}",
    }
    if not batch:
        row |= {
            "best_bid": price_text(pair, pair.bid),
            "best_bid_quantity": size_text(pair, pair.bid_size or 1),
            "best_ask": price_text(pair, pair.ask),
            "best_ask_quantity": size_text(pair, pair.ask_size or 1),
        }
    return row


def advanced_product(
    pair: Pair, stats: DayStats, *, alias: str = "", alias_to: list[str] | None = None
) -> dict[str, Any]:
    """A product of `/market/products`; with `alias` the -USDC twin that maps to it."""
    instrument = pair.instrument
    quote = "USDC" if alias else instrument.quote
    change = (stats.last - stats.open) / stats.open * 100 if stats.open else 0.0
    price, online = price_text(pair, stats.last), pair.status == "TRADING"
    base_step, quote_step = pair.size_text(1), pair.price_text(1)
    return {
        "product_id": f"{instrument.base}-{quote}",
        "price": price,
        "price_percentage_change_24h": f"{change:.14f}",
        "volume_24h": size_text(pair, stats.volume),
        "volume_percentage_change_24h": "0",
        "base_increment": base_step,
        "quote_increment": quote_step,
        "quote_min_size": "1",
        "quote_max_size": "150000000",
        "base_min_size": base_step,
        "base_max_size": "3400",
        "base_name": asset_name(instrument.base),
        "quote_name": asset_name(quote),
        "watched": False,
        "is_disabled": False,
        "new": False,
        "status": "online" if online else ("delisted" if pair.status == "DELISTED" else "offline"),
        "cancel_only": pair.status == "CANCEL_ONLY",
        "limit_only": False,
        "post_only": False,
        "trading_disabled": not online,
        "auction_mode": False,
        "product_type": "SPOT",
        "quote_currency_id": quote,
        "base_currency_id": instrument.base,
        "fcm_trading_session_details": None,
        "mid_market_price": "",
        "alias": alias,
        "alias_to": alias_to or [],
        "base_display_symbol": instrument.base,
        "quote_display_symbol": quote,
        "view_only": False,
        "price_increment": quote_step,
        "display_name": f"{instrument.base}-{quote}",
        "product_venue": "CBE",
        "approximate_quote_24h_volume": pair.quote_text(stats.quote_volume, 2),
    }


def asset_name(symbol: str) -> str:
    """Full name of an asset; of an unknown one its symbol."""
    try:
        return asset_of(symbol).name
    except KeyError:
        return symbol


# -- Exchange


def sequence(trade_id: int) -> int:
    """The product's sequence at a trade: it rises over all kinds of messages, so by more than one a trade."""
    return trade_id * _SEQUENCE_STEP + 7


def _order_ids(trade_id: int) -> tuple[str, str]:
    maker = f"{trade_id * 2654435761 & 0xFFFFFFFF:08x}-6b1d-4f0a-9c3e-{trade_id:012x}"
    taker = f"{trade_id * 2246822519 & 0xFFFFFFFF:08x}-3e77-4a52-8d14-{trade_id:012x}"
    return maker, taker


def match_payload(pair: Pair, trade: Trade, kind: str = "match") -> bytes:
    """A `match` or `last_match`; the side is the maker's."""
    made, price, size, at_us, sold = trade
    maker, taker = _order_ids(made)
    return (
        f'{{"type":"{kind}","trade_id":{made},"maker_order_id":"{maker}","taker_order_id":"{taker}",'
        f'"side":"{"buy" if sold else "sell"}","size":"{size_text(pair, size)}","price":"{price_text(pair, price)}",'
        f'"product_id":"{pair.instrument.native}","sequence":{sequence(made)},"time":"{micros_text(at_us)}"}}'
    ).encode()


def exchange_ticker(pair: Pair, trade: Trade, stats: DayStats) -> dict[str, Any]:
    """A `ticker`; its side is the TAKER's, the opposite of the match's."""
    made, price, size, at_us, sold = trade
    return {
        "type": "ticker",
        "sequence": sequence(made),
        "product_id": pair.instrument.native,
        "price": price_text(pair, price),
        "open_24h": price_text(pair, stats.open),
        "volume_24h": pair.size_text(stats.volume, 8),
        "low_24h": price_text(pair, stats.low),
        "high_24h": price_text(pair, stats.high),
        "volume_30d": pair.size_text(stats.volume * 30, 8),
        "best_bid": price_text(pair, pair.bid),
        "best_bid_size": pair.size_text(pair.bid_size or 1, 8),
        "best_ask": price_text(pair, pair.ask),
        "best_ask_size": pair.size_text(pair.ask_size or 1, 8),
        "side": "sell" if sold else "buy",
        "time": micros_text(at_us),
        "trade_id": made,
        "last_size": size_text(pair, size),
    }


def exchange_product(pair: Pair) -> dict[str, Any]:
    """A product of `/products`."""
    instrument = pair.instrument
    online = pair.status == "TRADING"
    return {
        "id": instrument.native,
        "base_currency": instrument.base,
        "quote_currency": instrument.quote,
        "quote_increment": pair.price_text(1),
        "base_increment": pair.size_text(1),
        "display_name": instrument.native,
        "min_market_funds": "1",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": pair.status == "CANCEL_ONLY",
        "status": "online" if online else ("delisted" if pair.status == "DELISTED" else "offline"),
        "status_message": "",
        "trading_disabled": not online,
        "fx_stablecoin": instrument.base in {"USDT", "USDC"},
        "max_slippage_percentage": "0.03000000",
        "auction_mode": False,
        "high_bid_limit_percentage": "",
    }


def exchange_trade(pair: Pair, trade: Trade) -> dict[str, Any]:
    """A row of `/products/{id}/trades`."""
    made, price, size, at_us, sold = trade
    return {
        "trade_id": made,
        "side": "buy" if sold else "sell",
        "size": pair.size_text(size, 8),
        "price": pair.price_text(price),
        "time": micros_text(at_us),
    }
