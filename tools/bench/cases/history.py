"""History: 1,000 candles, and an indicator over them, from ROWS stored minutes (default 5 million), through the real repository.

Rows are made by the server itself, month by month, in the schema that the migrations make; ranges and series are drawn at
random, so that most reads touch pages that no read before has touched. Times are wall times of the query, Postgres included.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg

from cryptopulse.common.config import SERVICES
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.indicators import bootstrap
from cryptopulse.indicators.adapters.candle_repository import CandleRepository
from cryptopulse.indicators.application.query_history import HistoryQueries
from cryptopulse.indicators.domain.registry import BY_NAME
from tools.bench.backends import fresh_backends
from tools.bench.measure import Row, percentile, sized

ROWS: Final = int(os.environ.get("ROWS", sized(5_000_000, 50_000)))
TITLE = f"History: 1,000 candles and an indicator over them, from {ROWS:,} stored rows"
PER_SERIES: Final = min(ROWS, 500_000)
"""Minutes of one series: about a year."""
READS: Final = sized(200, 10)
CANDLES: Final = 1_000
MIGRATIONS: Final = Path(bootstrap.__file__).parent / "migrations"
START_MS: Final = 1_704_067_200_000
MINUTE_MS: Final = 60_000
SOURCE: Final = "binance"
FILL: Final = """
INSERT INTO market.candles
SELECT $1, '1m', t, p, p * 1.001, p * 0.999, p * 1.0002, 12.345, p * 12.345, 100, 6.1, t, t + 99, true, 0, 0, 1, false
FROM (SELECT t, round((60000 + 5000 * sin(t / 8.64e7) + 50 * sin(t / 7e5))::numeric, 2) AS p
      FROM generate_series($2::bigint, $3::bigint, 60000) AS t) AS made
"""


class Nothing:
    """No forming bars: only what is stored is asked for."""

    async def forming(self, _symbol: str, _source: str, _interval: Interval) -> list[Candle]:
        """None."""
        return []

    async def values(self, _symbol: str, _source: str, _interval: Interval) -> IndicatorUpdate | None:
        """None."""
        return None


async def run() -> list[Row]:
    """Fill, then read."""
    async with fresh_backends() as backends, _market(backends.postgres) as database:
        count = max(1, ROWS // PER_SERIES)
        seconds = await _fill(backends.postgres, count)
        queries = HistoryQueries(CandleRepository(database), Nothing())
        rng = random.Random(7)

        def somewhere() -> tuple[str, int]:
            start = START_MS + rng.randrange(max(1, PER_SERIES - CANDLES)) * MINUTE_MS
            return f"C{rng.randrange(count)}-USDT", start

        async def candles() -> int:
            symbol, start = somewhere()
            return len(await queries.candles(symbol, SOURCE, "1m", from_ms=start, to_ms=None, limit=CANDLES))

        def over(name: str) -> Callable[[], Awaitable[int]]:
            async def fold() -> int:
                symbol, start = somewhere()
                study = BY_NAME[name].make("1m", {})
                found, _ = await queries.fold(
                    symbol, SOURCE, "1m", [study], from_ms=start, to_ms=None, limit=CANDLES
                )
                return len(found)

            return fold

        rows = [
            await _read("1,000 candles", candles, "< 5 ms", {"fill rows/s": count * PER_SERIES / seconds})
        ]
        folds = [
            await _read(f"{name} over 1,000 candles", over(name), "< 50 ms", {})
            for name in ("rsi", "ichimoku", "adx")
        ]
        return rows + folds


@asynccontextmanager
async def _market(url: str) -> AsyncIterator[Database]:
    facts = SERVICES["indicators"]
    await migrate(url, schema=facts.schema, role=facts.role, directory=MIGRATIONS)
    database = Database(
        url, schema=facts.schema, role=facts.role, application_name="bench", min_size=1, max_size=2
    )
    await database.start()
    try:
        yield database
    finally:
        await database.close()


async def _fill(url: str, count: int) -> float:
    """A year of minutes of each series; the seconds that it took."""
    connection = await asyncpg.connect(url)
    try:
        started = time.perf_counter()
        end = START_MS + (PER_SERIES - 1) * MINUTE_MS
        months = sorted({_month(at) for at in range(START_MS, end + 1, 86_400_000)} | {_month(end)})
        for month in months:
            await connection.execute("SELECT market.ensure_candle_partition('1m', $1)", month)
        for number in range(count):
            series = await connection.fetchval(
                "INSERT INTO market.series (symbol, source) VALUES ($1, $2) RETURNING id",
                f"C{number}-USDT",
                SOURCE,
            )
            await connection.execute(FILL, series, START_MS, end)
        await connection.execute("ANALYZE market.candles")
        return time.perf_counter() - started
    finally:
        await connection.close()


def _month(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms / 1000, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp() * 1000)


async def _read(name: str, read: Callable[[], Awaitable[int]], hold: str, extra: dict[str, float]) -> Row:
    """READS random reads; a read that finds fewer candles ends the run."""
    for _ in range(3):
        await read()
    walls = []
    cpu = time.process_time()
    for _ in range(READS):
        started = time.perf_counter()
        if await read() != CANDLES:
            raise RuntimeError(f"{name}: not {CANDLES} candles")
        walls.append(time.perf_counter() - started)
    cpu = time.process_time() - cpu
    return Row(
        case="history",
        name=name,
        unit="reads/s",
        rounds=READS,
        per_cpu_second=READS / cpu,
        low=1 / max(walls),
        high=1 / min(walls),
        per_wall_second=READS / sum(walls),
        cpu_us_per_item=1e6 * cpu / READS,
        hold=hold,
        extra={"p50 ms": 1e3 * percentile(walls, 0.5), "p99 ms": 1e3 * percentile(walls, 0.99), **extra},
    )
