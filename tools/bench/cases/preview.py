"""Preview of a rule over HTTP: when it would have fired over 90 days of stored minutes (129,600 candles), through the gateway.

The minutes lie in Postgres as the indicators service keeps them, with the longer bars; the price walks as bitcoin does. Each request is another rule, so that nothing is remembered from the one before.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import asyncpg

from cryptopulse.common.contracts.intervals import DAY_MS, MINUTE_MS, length_ms, open_time
from tools.bench.backends import fresh_backends
from tools.bench.measure import QUICK, Row, percentile, sized
from tools.harness.system import System

TITLE = "Alerts: preview of a rule over 90 days of stored minutes, over HTTP"
NOT_IN = ("quick",)
"""A whole system is started for it; in a quick run that of `route` is enough."""
DAYS: Final = sized(90, 3)
REQUESTS: Final = sized(12, 2)
SYMBOL: Final = "BTC-USDT"
SETTINGS: Final = {
    "SYMBOLS": SYMBOL,
    "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "0",
    "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "0",
    "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "0",
    "LOG_LEVEL": "WARNING",
}
MINUTES: Final = """
INSERT INTO market.candles
SELECT $1::int, '1m', t, p, round(p * 1.0003, 2), round(p * 0.9997, 2), p, 12.5, p * 12.5, 100, 6, t, t + 99, true, 0, 0, 1, false
FROM (SELECT t, round((60000 * exp(sum(0.0006 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())) OVER (ORDER BY t)))::numeric, 2) AS p
      FROM generate_series($2::bigint, $3::bigint, 60000) AS t) AS made
ON CONFLICT DO NOTHING
"""
"""A walk of 0.06 % a minute, 43 % a year: as lively as bitcoin."""
LONGER: Final = """
INSERT INTO market.candles
SELECT $1::int, $4, bar, (array_agg(open ORDER BY open_time))[1], max(high), min(low),
       (array_agg(close ORDER BY open_time DESC))[1], sum(volume), sum(quote_volume), sum(trades), sum(taker_buy_volume),
       min(first_id), max(last_id), true, 0, 0, 1, false
FROM (SELECT *, open_time / $5 * $5 AS bar FROM market.candles
      WHERE series_id = $1 AND bar_interval = '1m' AND open_time >= $2 AND open_time < $3) AS minutes
GROUP BY bar ON CONFLICT DO NOTHING
"""
KINDS: Final[dict[str, list[dict[str, Any]]]] = {
    "price cross": [
        {"type": "price_cross", "value": str(56_000 + 700 * number)} for number in range(REQUESTS)
    ],
    "change of 0.8 % in 15 minutes": [
        {"type": "pct_change", "pct": f"{0.8 + number / 100:.2f}", "window": "15m"}
        for number in range(REQUESTS)
    ],
    "trailing from the high": [
        {"type": "trailing", "pct": f"{2 + number / 10:.1f}", "from": "high"} for number in range(REQUESTS)
    ],
}


async def run() -> list[Row]:
    """A row for each kind of condition."""
    simulator = ("--rate", "20", "--symbols", f"{SYMBOL},USDT-USD")
    async with fresh_backends() as backends:
        with tempfile.TemporaryDirectory() as folder:
            async with System(
                backends, Path(folder), settings=SETTINGS, simulator_arguments=simulator
            ) as system:
                await system.price("BTC-USDT")
                await _fill(backends.postgres)
                headers = await system.login()
                return [await _timed(system, headers, name, tried) for name, tried in KINDS.items()]


async def _fill(url: str) -> None:
    """The minutes of the last days, and the longer bars of them."""
    now = int(time.time() * 1000)
    end = open_time(now, "1m")
    start = open_time(now - (DAYS + 1) * DAY_MS, "1d")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO market.series (symbol, source) VALUES ($1, 'binance') ON CONFLICT DO NOTHING", SYMBOL
        )
        series = await connection.fetchval(
            "SELECT id FROM market.series WHERE symbol = $1 AND source = 'binance'", SYMBOL
        )
        for at in (start, end):
            await connection.execute("SELECT market.ensure_candle_partition('15m', $1)", at)
        for day in range(start, end, DAY_MS):
            await connection.execute("SELECT market.ensure_candle_partition('1m', $1)", day)
        await connection.execute("SELECT setseed(0.4)")
        await connection.execute(MINUTES, series, start, end - MINUTE_MS)
        for interval in ("15m", "1h"):
            until, length = open_time(now, interval), length_ms(interval)
            await connection.execute(LONGER, series, start, until, interval, length)
        await connection.execute("ANALYZE market.candles")
    finally:
        await connection.close()


async def _timed(system: System, headers: dict[str, str], name: str, conditions: list[dict[str, Any]]) -> Row:
    walls, candles, fired = [], 0, 0
    for condition in conditions:
        body = {
            "symbol": SYMBOL,
            "source": "binance",
            "condition": condition,
            "trigger": "every_cross",
            "days": DAYS,
        }
        started = time.perf_counter()
        answer = await system.client.post("/v1/alerts/preview", json=body, headers=headers)
        while (
            answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        ):  # the account's own limit is not what is measured
            await asyncio.sleep(float(answer.headers["retry-after"]))
            started = time.perf_counter()
            answer = await system.client.post("/v1/alerts/preview", json=body, headers=headers)
        walls.append(1000 * (time.perf_counter() - started))
        answer.raise_for_status()
        found = answer.json()
        candles, fired = max(candles, found["candles"]), fired + found["count"]
    if not fired and not QUICK:
        raise RuntimeError(f"{name}: nothing would have fired over {candles} candles")
    return Row(
        case="preview",
        name=f"{name}, {DAYS} days",
        unit="requests/s",
        rounds=len(walls),
        per_cpu_second=0.0,
        low=0.0,
        high=0.0,
        per_wall_second=1000 * len(walls) / sum(walls),
        cpu_us_per_item=0.0,
        hold="< 1,000 ms",
        extra={
            "candles": candles,
            "firings": fired,
            "p50 ms": percentile(walls, 0.5),
            "p99 ms": percentile(walls, 0.99),
        },
    )
