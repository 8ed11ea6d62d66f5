"""TradingView's UDF answers: bare JSON, times in unix seconds, JSON numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.resolver import Resolved
from cryptopulse.common.contracts.values import plain
from cryptopulse.gateway.domain.seed import number

RESOLUTIONS: Final = {
    "1": "1m", "5": "5m", "15": "15m", "30": "30m", "60": "1h", "120": "2h", "240": "4h", "360": "6h", "720": "12h",
    "1D": "1d", "1W": "1w", "1M": "1M",
}  # fmt: skip
_ALIASES: Final = {"D": "1D", "W": "1W", "M": "1M", "1H": "60", "4H": "240"}
EXCHANGE: Final = "CRYPTOPULSE"


def interval_of(resolution: str) -> str | None:
    """Our interval for a resolution, None when there is none."""
    return RESOLUTIONS.get(_ALIASES.get(resolution.upper(), resolution.upper()))


def config(exchanges: Sequence[str]) -> dict[str, Any]:
    """What this datafeed can do."""
    listed = [{"value": "", "name": "All", "desc": "All sources"}]
    listed += [{"value": name, "name": name, "desc": name} for name in (EXCHANGE, *exchanges)]
    return {
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": True,
        "supports_timescale_marks": True,
        "supports_time": True,
        "supported_resolutions": list(RESOLUTIONS),
        "exchanges": listed,
        "symbols_types": [{"name": "All", "value": ""}, {"name": "Crypto", "value": "crypto"}],
    }


def error(text: str) -> dict[str, str]:
    """An error in UDF's words; the status stays 200."""
    return {"s": "error", "errmsg": text}


def price_scale(resolved: Resolved, price: Decimal | None) -> int:
    """10 ** decimals: the pair's precision, else six significant digits of its price."""
    if resolved.pair is not None and resolved.pair.precision is not None:
        return int(10 ** min(resolved.pair.precision, 16))
    if price is None or price <= 0:
        return 100
    return int(10 ** max(2, min(16, 5 - price.adjusted())))


def symbol_info(resolved: Resolved, price: Decimal | None, name: str | None) -> dict[str, Any]:
    """One symbol."""
    return {
        "name": resolved.symbol,
        "ticker": resolved.symbol,
        "full_name": f"{EXCHANGE}:{resolved.symbol}",
        "description": f"{name or resolved.base} / {resolved.quote}",
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": EXCHANGE,
        "listed_exchange": EXCHANGE,
        "minmov": 1,
        "minmov2": 0,
        "pricescale": price_scale(resolved, price),
        "has_intraday": True,
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "intraday_multipliers": [key for key in RESOLUTIONS if key.isdigit()],
        "supported_resolutions": list(RESOLUTIONS),
        "volume_precision": 8,
        "data_status": "streaming",
        "currency_code": resolved.quote,
        "format": "price",
    }


def found(symbol: str, name: str | None) -> dict[str, str]:
    """One search result."""
    base, _, quote = symbol.partition("-")
    return {
        "symbol": symbol,
        "full_name": f"{EXCHANGE}:{symbol}",
        "description": f"{name or base} / {quote}",
        "exchange": EXCHANGE,
        "ticker": symbol,
        "type": "crypto",
    }


def history(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Bars as column arrays, ascending and unique."""
    bars = {row["open_time"]: row for row in rows}
    ordered = [bars[at] for at in sorted(bars)]
    answer: dict[str, Any] = {"s": "ok", "t": [row["open_time"] // 1_000 for row in ordered]}
    for short, name in (("o", "open"), ("h", "high"), ("l", "low"), ("c", "close"), ("v", "volume")):
        answer[short] = [number(row[name]) for row in ordered]
    return answer


def no_data(before_ms: int | None) -> dict[str, Any]:
    """No bars in the range; `nextTime` is the nearest bar before it, absent when history is exhausted."""
    if before_ms is None:
        return {"s": "no_data"}
    return {"s": "no_data", "nextTime": before_ms // 1_000, "nb": before_ms // 1_000}


def quote(name: str, update: PriceUpdate | None) -> dict[str, Any]:
    """One quote; previous close is the price 24 hours ago."""
    if update is None:
        return {"s": "error", "n": name, "v": {}, "errmsg": "unknown_symbol"}
    before = None
    if update.change_24h_pct is not None and update.change_24h_pct > -100:
        before = update.price / (1 + update.change_24h_pct / 100)
        before = before.quantize(Decimal(1).scaleb(before.adjusted() - 11))
    values = {
        "lp": update.price,
        "ch": None if before is None else update.price - before,
        "chp": update.change_24h_pct,
        "ask": update.ask,
        "bid": update.bid,
        "open_price": before,
        "high_price": update.high_24h,
        "low_price": update.low_24h,
        "prev_close_price": before,
        "volume": update.volume_24h,
    }
    shown = {key: None if value is None else number(plain(value)) for key, value in values.items()}
    about = {
        "short_name": update.symbol,
        "exchange": EXCHANGE,
        "description": update.symbol,
        "original_name": name,
    }
    return {"s": "ok", "n": name, "v": {**shown, **about}}
