"""History: 1,000 candles, and an indicator over them, from ROWS stored minutes (default 5 million), through the real repository.

Rows are made by the server itself in the schema that the migrations make (`stored_minutes`); ranges and series are drawn at
random, so that most reads touch pages that no read before has touched. Times are wall times of the query, Postgres included,
of candles up to the JSON that goes out.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

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
from tools.bench.stored_minutes import MINUTE_MS, SOURCE, START_MS, fill, last_month

ROWS: Final = int(os.environ.get("ROWS", sized(5_000_000, 50_000)))
TITLE = f"History: 1,000 candles and an indicator over them, from {ROWS:,} stored rows"
PER_SERIES: Final = min(ROWS, 500_000)
"""Minutes of one series: about a year."""
READS: Final = sized(200, 10)
FOLDS: Final = sized(30, 1)
WARMUP: Final = sized(3, 0)
SHOWN: Final = 5
"""Of all indicators, the slowest so many are printed."""
CANDLES: Final = 1_000
MIGRATIONS: Final = Path(bootstrap.__file__).parent / "migrations"


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
        seconds = await fill(backends.postgres, count, PER_SERIES)
        print(f"{count * PER_SERIES:,} rows loaded and indexed in {seconds:,.0f} s", flush=True)
        return await _reads(database, count)


async def _reads(database: Database, count: int) -> list[Row]:
    """Random reads of `count` series: candles as backfill and as live minutes lie, then every indicator over candles."""
    queries = HistoryQueries(CandleRepository(database), Nothing())
    rng = random.Random(7)
    # As the service does when it has started.
    gc.collect()
    gc.freeze()
    end = START_MS + (PER_SERIES - CANDLES) * MINUTE_MS
    live_from = last_month(PER_SERIES)

    def somewhere(first: int = START_MS, last: int = end) -> tuple[str, int]:
        return f"C{rng.randrange(count)}-USDT", rng.randrange(first, last, MINUTE_MS)

    async def candles(symbol: str, start: int) -> int:
        rows = await queries.candles(symbol, SOURCE, "1m", from_ms=start, to_ms=None, limit=CANDLES)
        msgspec.json.encode(rows)
        return len(rows)

    def over(name: str) -> Callable[[], Awaitable[int]]:
        async def fold() -> int:
            symbol, start = somewhere()
            study = BY_NAME[name].make("1m", {})
            found, _ = await queries.fold(
                symbol, SOURCE, "1m", [study], from_ms=start, to_ms=None, limit=CANDLES
            )
            return len(found)

        return fold

    backfilled = await _read(
        "1,000 candles", lambda: candles(*somewhere(last=live_from - CANDLES * MINUTE_MS)), "< 5 ms", READS
    )
    live = await _read(
        "1,000 candles, as live minutes lie", lambda: candles(*somewhere(first=live_from)), "", READS
    )
    folds = [await _read(f"{name} over 1,000 candles", over(name), "< 50 ms", FOLDS) for name in BY_NAME]
    folds.sort(key=lambda row: row.extra["p99 ms"], reverse=True)
    return [backfilled, live, *folds[:SHOWN]]


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


async def _read(name: str, read: Callable[[], Awaitable[int]], hold: str, reads: int) -> Row:
    """So many random reads; a read that finds fewer candles ends the run."""
    for _ in range(WARMUP):
        await read()
    walls = []
    cpu = time.process_time()
    for _ in range(reads):
        started = time.perf_counter()
        if await read() != CANDLES:
            raise RuntimeError(f"{name}: not {CANDLES} candles")
        walls.append(time.perf_counter() - started)
    cpu = time.process_time() - cpu
    return Row(
        case="history",
        name=name,
        unit="reads/s",
        rounds=reads,
        per_cpu_second=reads / cpu,
        low=1 / max(walls),
        high=1 / min(walls),
        per_wall_second=reads / sum(walls),
        cpu_us_per_item=1e6 * cpu / reads,
        hold=hold,
        extra={"p50 ms": 1e3 * percentile(walls, 0.5), "p99 ms": 1e3 * percentile(walls, 0.99)},
    )
