"""Stored minutes by the hundred million: made by the server itself, month by month on two connections, indexed afterwards.

All months but the last lie as backfill writes them, one series after the other; the last as live candles arrive, minute
after minute over all series. The tables are those of the migrations, without a write-ahead log of the load.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import asyncpg

START_MS: Final = 1_704_067_200_000
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
SOURCE: Final = "binance"
LOADERS: Final = 2
KEY: Final = "PRIMARY KEY (series_id, bar_interval, open_time)"
TEMPLATE: Final = """
CREATE UNLOGGED TABLE market.template AS
SELECT '1m' AS bar_interval, t AS open_time, p AS open, round(p * 1.001, 2) AS high, round(p * 0.999, 2) AS low,
       round(p * 1.0002, 2) AS close, 12.345::numeric AS volume, p * 12.345 AS quote_volume, 100::bigint AS trades,
       6.1::numeric AS taker_buy_volume, t AS first_id, t + 99 AS last_id, true AS complete, 0::smallint AS origin,
       0 AS revision, 1::bigint AS epoch, false AS simulated
FROM (SELECT t, round((60000 + 5000 * sin(t / 8.64e7) + 50 * sin(t / 7e5))::numeric, 2) AS p
      FROM generate_series($1::bigint, $2::bigint, 60000) AS t) AS made
"""
BY_SERIES: Final = """
INSERT INTO market.{leaf} SELECT $1::int, template.*
FROM market.template WHERE open_time >= $2 AND open_time < $3 ORDER BY open_time
"""
BY_MINUTE: Final = """
INSERT INTO market.{leaf} SELECT series, template.*
FROM (SELECT * FROM market.template WHERE open_time >= $2 AND open_time < $3 ORDER BY open_time) AS template
     CROSS JOIN LATERAL unnest($1::int[]) AS series
"""


async def fill(url: str, series: int, minutes: int) -> float:
    """`minutes` of each of `series` symbols `C<n>-USDT`, from START_MS on; the seconds that it took, indexes included."""
    started = time.perf_counter()
    end = START_MS + (minutes - 1) * MINUTE_MS
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ALTER TABLE market.candles DROP CONSTRAINT candles_pkey")
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        await connection.execute(TEMPLATE.replace("$1", str(START_MS)).replace("$2", str(end)))
        await connection.execute("CREATE INDEX ON market.template (open_time)")
        ids = [
            row["id"]
            for row in await connection.fetch(
                "INSERT INTO market.series (symbol, source) "
                "SELECT format('C%s-USDT', n), $1 FROM generate_series(0, $2) AS n RETURNING id",
                SOURCE,
                series - 1,
            )
        ]
        months = _months(end)
        todo = list(enumerate(months))
        await asyncio.gather(*(_load(url, ids, todo, len(months) - 1) for _ in range(LOADERS)))
        await connection.execute(f"ALTER TABLE market.candles ADD {KEY}")
        await connection.execute("DROP TABLE market.template")
    finally:
        await connection.close()
    return time.perf_counter() - started


async def _load(url: str, ids: list[int], todo: list[tuple[int, tuple[int, int]]], last: int) -> None:
    """Take one month after the other until none is left."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        while todo:
            number, (first, until) = todo.pop()
            leaf = await connection.fetchval("SELECT market.ensure_candle_partition('1m', $1)", first)
            await connection.execute(f"ALTER TABLE market.{leaf} SET UNLOGGED")
            if number == last:
                await connection.execute(BY_MINUTE.format(leaf=leaf), ids, first, until)
            else:
                by_series = await connection.prepare(BY_SERIES.format(leaf=leaf))
                await by_series.executemany([(series, first, until) for series in ids])
            await connection.execute(f"ALTER TABLE market.{leaf} ADD {KEY}")
            await connection.execute(f"VACUUM (ANALYZE) market.{leaf}")
    finally:
        await connection.close()


def last_month(minutes: int) -> int:
    """The open time of the first minute of the month that lies as live candles arrive."""
    return _months(START_MS + (minutes - 1) * MINUTE_MS)[-1][0]


def _months(end_ms: int) -> list[tuple[int, int]]:
    starts = sorted({_month(at) for at in range(START_MS, end_ms + 1, DAY_MS)} | {_month(end_ms)})
    return list(zip(starts, [*starts[1:], end_ms + MINUTE_MS], strict=True))


def _month(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms / 1000, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp() * 1000)
