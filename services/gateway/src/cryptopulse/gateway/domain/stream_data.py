"""The data of stream messages besides tickers: trades, candles, indicators, signals, alerts, portfolios, feeds."""

from __future__ import annotations

from typing import Any

import orjson

from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.portfolio import PortfolioValued
from cryptopulse.common.contracts.ticks import Conflated, Trade
from cryptopulse.common.contracts.values import plain
from cryptopulse.gateway.domain.price_body import text
from cryptopulse.gateway.domain.seed import iso


def dumps(body: dict[str, Any]) -> bytes:
    """A message as JSON."""
    return orjson.dumps(body)


def trade(item: tuple[str, Trade | Conflated]) -> bytes:
    """One trade of a venue; `side` is the taker's. Or `n` of them that an overload has made one, with their ids and prices."""
    venue, tick = item
    if isinstance(tick, Conflated):
        return orjson.dumps(
            {
                "s": tick.symbol,
                "src": venue,
                "id": tick.last_id,
                "p": plain(tick.close),
                "q": plain(tick.volume),
                "side": "unknown",
                "ts": tick.last_event_us // 1_000,
                "rx": tick.received_us // 1_000,
                "n": tick.trades,
                "first_id": tick.first_id,
                "first_ts": tick.first_event_us // 1_000,
                "o": plain(tick.open),
                "h": plain(tick.high),
                "l": plain(tick.low),
                "qv": plain(tick.quote_volume),
                "tbv": plain(tick.taker_buy_volume),
            }
        )
    return orjson.dumps(
        {
            "s": tick.symbol,
            "src": venue,
            "id": tick.trade_id,
            "p": plain(tick.price),
            "q": plain(tick.size),
            "side": tick.side,
            "ts": tick.event_us // 1_000,
            "rx": tick.received_us // 1_000,
        }
    )


def when(item: tuple[str, Trade | Conflated]) -> tuple[int, int]:
    """What trades are in order by: our time of receipt, and the venue's id."""
    tick = item[1]
    return tick.received_us, tick.last_id if isinstance(tick, Conflated) else tick.trade_id


def candle(bar: Candle) -> bytes:
    """One candle, forming or closed."""
    return orjson.dumps(
        {
            "s": bar.symbol,
            "src": bar.source,
            "i": bar.interval,
            "t": bar.open_time,
            "o": plain(bar.open),
            "h": plain(bar.high),
            "l": plain(bar.low),
            "c": plain(bar.close),
            "v": plain(bar.volume),
            "qv": plain(bar.quote_volume),
            "n": bar.trades,
            "tbv": plain(bar.taker_buy_volume),
            "closed": bar.closed,
            "complete": bar.complete,
            "rev": bar.revision,
            "sim": bar.simulated,
        }
    )


def indicators(update: IndicatorUpdate) -> bytes:
    """All values of one bar."""
    return orjson.dumps(_indicator_head(update) | {"values": update.values})


def one_indicator(update: IndicatorUpdate, name: str) -> bytes:
    """One output of one bar, and the outputs that belong to it by name (`macd` brings `macd_signal`)."""
    values = {key: value for key, value in update.values.items() if key == name or key.startswith(f"{name}_")}
    return orjson.dumps(_indicator_head(update) | {"values": values})


def _indicator_head(update: IndicatorUpdate) -> dict[str, Any]:
    return {
        "s": update.symbol,
        "src": update.source,
        "i": update.interval,
        "t": update.open_time,
        "closed": update.closed,
        "rev": update.revision,
        "as_of": update.as_of_us // 1_000,
        "warmup": {
            "have": update.warmup.have,
            "needed": update.warmup.needed,
            "converged": update.warmup.converged,
        },
        "sim": update.simulated,
    }


def signal(event: Signal) -> bytes:
    """A signal on indicator values."""
    return orjson.dumps(
        {
            "id": event.id,
            "kind": event.kind,
            "s": event.symbol,
            "src": event.source,
            "i": event.interval,
            "t": event.open_time,
            "status": event.status,
            "direction": event.direction,
            "at": event.at_us // 1_000,
            "values": event.values,
            "sim": event.simulated,
        }
    )


def alert_event(event: AlertEvent) -> dict[str, Any]:
    """An alert event as clients see it; the same fields as in the event feed, without the owner."""
    return {
        "id": event.id,
        "type": event.type,
        "alert_id": event.rule_id,
        "dedupe_key": event.dedupe_key,
        "at": iso(event.at_ms),
        "at_ms": event.at_ms,
        "symbol": event.symbol,
        "source": event.source,
        "condition": event.condition,
        "message": event.message,
        "price": text(event.price),
        "threshold": text(event.threshold),
        "late": event.late,
        "data": event.data,
        "simulated": event.simulated,
    }


def alert(event: dict[str, Any], *, replayed: bool) -> bytes:
    """The `alert` message around an event."""
    return orjson.dumps(
        {
            "type": "alert",
            "event": event,
            "event_id": event["id"],
            "dedupe_key": event.get("dedupe_key"),
            "replayed": replayed,
        },
        default=str,
    )


def portfolio(value: PortfolioValued) -> bytes:
    """The value of a portfolio at one price snapshot."""
    return orjson.dumps(
        {
            "portfolio_id": value.portfolio_id,
            "version": value.version,
            "snapshot_id": value.snapshot_id,
            "ts": value.at_ms,
            "base_currency": value.base_currency,
            "value": text(value.value),
            "cost": plain(value.cost),
            "unrealised_pnl": text(value.unrealised_pnl),
            "unrealised_pnl_pct": text(value.unrealised_pnl_pct),
            "change_24h": text(value.change_24h),
            "complete": value.complete,
            "allocation_pct": {asset: plain(share) for asset, share in value.allocation_pct.items()},
            "holdings": value.holdings,
        }
    )


def feed(status: FeedStatus, now_us: int) -> dict[str, Any]:
    """What a client may know of a feed: states, ages, gaps and budgets; no addresses."""
    return {
        "venue": status.venue,
        "state": status.state,
        "active": status.active,
        "paused": status.paused,
        "simulated": status.simulated,
        "detail": status.detail,
        "last_tick_age_ms": None
        if status.last_tick_us is None
        else max(0, (now_us - status.last_tick_us) // 1_000),
        "reported_age_ms": max(0, (now_us - status.at_us) // 1_000),
        "reconnects": sum(item.reconnects for item in status.connections),
        "connections": [
            {
                "state": item.state,
                "symbols": item.symbols,
                "reason": item.reason,
                "since": item.since_us // 1_000,
            }
            for item in status.connections
        ],
        "open_gaps": len(status.gaps),
        "budgets": [
            {
                "name": item.name,
                "limit": item.limit,
                "left": item.left,
                "blocked": item.blocked_until_us is not None and item.blocked_until_us > now_us,
            }
            for item in status.budgets
        ],
        "history": None
        if status.history is None
        else {
            "series_total": status.history.series_total,
            "series_done": status.history.series_done,
            "candles": status.history.candles,
        },
    }
