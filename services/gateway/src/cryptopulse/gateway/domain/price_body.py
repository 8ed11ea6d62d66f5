"""The public form of a price: bytes made once per update, an age put in per answer; and cross rates."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Final

import orjson

from cryptopulse.common.contracts.prices import PriceStatus, PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.values import CONSOLIDATED, plain

_RANK: Final[dict[PriceStatus, int]] = {"ok": 0, "single": 1, "degraded": 2, "fallback": 3, "stale": 4}
CROSS_DIGITS: Final = 12
"""Significant digits of a cross rate."""


def text(value: Decimal | None) -> str | None:
    """A decimal as clients see it: plain text, None where unknown."""
    return None if value is None else plain(value)


def head(update: PriceUpdate) -> bytes:
    """Everything of the body that does not change with time, without the closing brace."""
    body = orjson.dumps(
        {
            "symbol": update.symbol,
            "price": plain(update.price),
            "ts": update.event_us // 1_000,
            "received_at": update.received_us // 1_000,
            "source": update.source,
            "bid": text(update.bid),
            "ask": text(update.ask),
            "change_24h_pct": text(update.change_24h_pct),
            "high_24h": text(update.high_24h),
            "low_24h": text(update.low_24h),
            "volume_24h": text(update.volume_24h),
            "sources_used": update.sources_used or [update.source],
            "excluded": [{"source": item.source, "reason": item.reason} for item in update.excluded],
            "confidence": text(update.confidence),
            "simulated": update.simulated,
        }
    )
    return body[:-1]


def body(prepared: bytes, status: str, received_us: int, now_us: int) -> bytes:
    """The full body at `now_us`: a price without news for 30 s is `stale`, whatever it was."""
    age = age_ms(received_us, now_us)
    if is_stale(received_us, now_us):
        return b'%b,"status":"stale","stale":true,"age_ms":%d}' % (prepared, age)
    return b'%b,"status":"%b","stale":false,"age_ms":%d}' % (prepared, status.encode(), age)


def etag(update: PriceUpdate, now_us: int) -> bytes:
    """A strong tag of (source, epoch, seq), another one once stale: a 304 needs no hash of the body."""
    mark = "s" if is_stale(update.received_us, now_us) else "f"
    return f'"{update.source}-{update.epoch:x}-{update.seq:x}-{mark}"'.encode()


def inverse_free_ratio(base: Decimal, quote: Decimal) -> Decimal:
    """Base / quote to `CROSS_DIGITS` significant digits, computed with more."""
    with localcontext() as context:
        context.prec = 40
        ratio = base / quote
        context.prec = CROSS_DIGITS
        return +ratio


def cross(symbol: str, base: PriceUpdate, quote: PriceUpdate) -> PriceUpdate:
    """The rate of `symbol` from two consolidated prices in USD: base / quote, bid / ask and ask / bid.

    It is as old as the older and as good as the worse of the two. Rolling 24 h extremes and volume have no cross form: None;
    the change does: (1 + base) / (1 + quote) - 1. Its place is the sum of both places: it rises with either, so that replicas
    that have heard the same stand at the same one.
    """
    older = base if base.received_us <= quote.received_us else quote
    worse: PriceStatus = base.status if _RANK[base.status] >= _RANK[quote.status] else quote.status
    price = inverse_free_ratio(base.price, quote.price)
    bid = inverse_free_ratio(base.bid, quote.ask) if base.bid and quote.ask else None
    ask = inverse_free_ratio(base.ask, quote.bid) if base.ask and quote.bid else None
    change = None
    if base.change_24h_pct is not None and quote.change_24h_pct is not None and quote.change_24h_pct > -100:
        grown = inverse_free_ratio(100 + base.change_24h_pct, 100 + quote.change_24h_pct)
        change = round((grown - 1) * 100, 6)
    return PriceUpdate(
        symbol=symbol,
        source=CONSOLIDATED,
        price=price,
        low=price,
        high=price,
        epoch=base.epoch + quote.epoch,
        seq=base.seq + quote.seq,
        event_us=older.event_us,
        received_us=older.received_us,
        status=worse,
        bid=bid,
        ask=ask,
        sources_used=sorted(set(base.sources_used) | set(quote.sources_used)),
        change_24h_pct=change,
        simulated=base.simulated or quote.simulated,
    )


def ticker(update: PriceUpdate) -> bytes:
    """The data of a `ticker` snapshot or update."""
    return orjson.dumps(
        {
            "s": update.symbol,
            "p": plain(update.price),
            "b": text(update.bid),
            "a": text(update.ask),
            "c24": text(update.change_24h_pct),
            "v24": text(update.volume_24h),
            "src": update.source,
            "st": update.status,
            "ts": update.event_us // 1_000,
            "rx": update.received_us // 1_000,
            "sim": update.simulated,
        }
    )
