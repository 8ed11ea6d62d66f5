"""From contracts to the JSON that clients see: decimals as plain text, times in milliseconds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from fastapi import Response

from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal, Warmup
from cryptopulse.common.contracts.prices import PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import plain
from cryptopulse.common.errors import FieldError, Invalid

_encode = msgspec.json.encode


def answer(body: Any) -> Response:
    """A JSON answer."""
    return Response(_encode(body), media_type="application/json")


def text(value: Decimal | None) -> str | None:
    """A decimal as plain text."""
    return None if value is None else plain(value)


def time_ms(value: str | None, name: str) -> int | None:
    """Milliseconds, or RFC 3339. Raises `Invalid` that names the parameter."""
    if value is None or value == "":
        return None
    try:
        if value.lstrip("-").isdigit():
            number = int(value)
        else:
            at = datetime.fromisoformat(value.replace(" ", "+"))
            if at.tzinfo is None:
                raise ValueError("no zone")
            number = int(at.timestamp() * 1000)
    except ValueError:
        number = -1
    if not 0 <= number < 4_102_444_800_000:
        raise Invalid(
            f"{name} is not a time",
            errors=(
                FieldError(name, "time", "give milliseconds since 1970 or RFC 3339 with a zone, before 2100"),
            ),
        )
    return number


def price_body(update: PriceUpdate, now_us: int) -> dict[str, Any]:
    """`GET /prices/{symbol}`."""
    stale = is_stale(update.received_us, now_us)
    return {
        "symbol": update.symbol,
        "price": plain(update.price),
        "ts": update.event_us // 1000,
        "received_at": update.received_us // 1000,
        "source": update.source,
        "status": "stale" if stale and update.status != "fallback" else update.status,
        "stale": stale or update.status == "stale",
        "age_ms": age_ms(update.received_us, now_us),
        "bid": text(update.bid),
        "ask": text(update.ask),
        "change_24h_pct": text(update.change_24h_pct),
        "high_24h": text(update.high_24h),
        "low_24h": text(update.low_24h),
        "volume_24h": text(update.volume_24h),
        "confidence": text(update.confidence),
        "sources_used": update.sources_used,
        "excluded": [{"source": gone.source, "reason": gone.reason} for gone in update.excluded],
        "simulated": update.simulated,
        "epoch": update.epoch,
        "seq": update.seq,
    }


def reference_body(symbol: str, reference: ReferencePrice, now_us: int) -> dict[str, Any]:
    """A price that no connected venue has: CoinGecko's, labelled `fallback` with its age."""
    return {
        "symbol": symbol,
        "price": plain(reference.price),
        "ts": reference.updated_us // 1000,
        "received_at": reference.received_us // 1000,
        "source": "coingecko",
        "status": "fallback",
        "stale": now_us - reference.received_us > 900_000_000,
        "age_ms": age_ms(reference.received_us, now_us),
        "bid": None,
        "ask": None,
        "change_24h_pct": text(reference.change_24h_pct),
        "high_24h": None,
        "low_24h": None,
        "volume_24h": text(reference.volume_24h),
        "sources_used": ["coingecko"],
        "excluded": [],
        "simulated": False,
    }


def values_body(
    update: IndicatorUpdate, names: list[str] | None, warmup: Warmup, now_us: int
) -> dict[str, Any]:
    """`GET /indicators/{symbol}`: all values, or those named; `warmup` is that of the indicators shown."""
    values = update.values if names is None else {name: update.values.get(name) for name in names}
    age = 0 if update.closed else max(0, now_us - update.as_of_us) // 1000
    return {
        "symbol": update.symbol,
        "interval": update.interval,
        "source": update.source,
        "open_time": update.open_time,
        "closed": update.closed,
        "revision": update.revision,
        "as_of": update.as_of_us // 1000,
        "values": values,
        "warmup": {"have": warmup.have, "needed": warmup.needed, "converged": warmup.converged},
        "engine": {},
        "anchor": update.anchor,
        "age_ms": age,
        "stale": age > 30_000,
        "simulated": update.simulated,
    }


def signal_body(signal: Signal) -> dict[str, Any]:
    """One row of a list of signals."""
    return {
        "id": signal.id,
        "kind": signal.kind,
        "symbol": signal.symbol,
        "source": signal.source,
        "interval": signal.interval,
        "open_time": signal.open_time,
        "status": signal.status,
        "direction": signal.direction,
        "at": signal.at_us // 1000,
        "values": signal.values,
        "simulated": signal.simulated,
    }
