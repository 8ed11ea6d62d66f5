"""Stored candles in Postgres: pages answer what was stored, digit for digit, and read no more than they hold."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.services import facts_of
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.indicators import bootstrap
from cryptopulse.indicators.adapters.candle_repository import CandleRepository
from cryptopulse.indicators.application.query_history import HistoryQueries, plain_candle
from cryptopulse.indicators.application.update_indicators import WARM_BARS, points_of
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import Point
from cryptopulse.indicators.domain.registry import live_studies

MINUTE = 60_000
DAY = 86_400_000
DECEMBER = 1_733_011_200_000
KEY: tuple[str, str, Interval] = ("BTC-USD", "binance", "1m")
BOUNDS = (None, DECEMBER - 2_000 * MINUTE, DECEMBER - 700 * MINUTE, DECEMBER, DECEMBER + 1_490 * MINUTE)


class Overheard:
    """A database whose pages are written down, to be explained."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with self.database.connection() as connection:
            self._real = connection
            yield self

    async def fetch(self, query: str, *args: Any) -> Any:
        return await self._real.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        self.asked.append((query, args))
        return await self._real.fetchrow(query, *args)


class NothingLive:
    async def forming(self, _symbol: str, _source: str, _interval: Interval) -> list[Candle]:
        return []

    async def values(self, _symbol: str, _source: str, _interval: Interval) -> IndicatorUpdate | None:
        return None


@pytest.fixture
async def database(environ: dict[str, str]) -> AsyncIterator[Database]:
    facts, url = facts_of("indicators"), environ["DATABASE_URL"]
    directory = Path(bootstrap.__file__).parent / "migrations"
    await migrate(url, schema=facts.schema, role=facts.role, directory=directory)
    database = Database(url, schema=facts.schema, role=facts.role, application_name="test", max_size=2)
    await database.start()
    yield database
    await database.close()


def stored_minutes(start: int, count: int, *, digits: int = 2, holes: bool = True) -> list[Candle]:
    """Bars as different as rows may be: holes, quiet minutes, unknown ids, zeros at the end of numbers."""
    dice, price, found = random.Random(count), Decimal("60000.10"), []
    for number in range(count):
        if holes and number % 97 in range(30, 40):
            continue
        close = price + Decimal(dice.randrange(-500, 501)).scaleb(-digits)
        quiet = number % 13 == 0
        found.append(
            Candle(
                *KEY, start + number * MINUTE, price, max(price, close), min(price, close), close,
                Decimal(0) if quiet else Decimal(dice.randrange(1, 10**9)).scaleb(-dice.randrange(9)),
                Decimal(dice.randrange(10**9)).scaleb(-3), 0 if quiet else 7, Decimal("1.500"),
                None if quiet else 10 * number, None if quiet else 10 * number + 6,
                complete=number % 11 > 0, revision=number % 3, simulated=number % 2 == 0,
            )
        )  # fmt: skip
        price = close
    return found


def facts(points: list[Point]) -> list[tuple[Any, ...]]:
    return [
        (p.open_time, p.o / p.ps, p.h / p.ps, p.l / p.ps, p.c / p.ps, p.v / p.vs, p.fc, p.as_of)
        for p in points
    ]


def told(candles: list[Candle]) -> list[tuple[Any, ...]]:
    """With decimals as they are written: 1.5 and 1.50 are equal, but not the same answer."""
    return [tuple(str(getattr(row, name)) for name in row.__struct_fields__) for row in candles]


def page(rows: list[Candle], from_ms: int | None, to_ms: int | None, limit: int) -> list[Candle]:
    found = [
        row
        for row in rows
        if (from_ms is None or row.open_time >= from_ms) and (to_ms is None or row.open_time < to_ms)
    ]
    return found[-limit:] if from_ms is None else found[:limit]


async def test_a_page_is_what_was_stored_digit_for_digit_over_holes_and_months(database: Database) -> None:
    store = CandleRepository(database)
    rows = stored_minutes(DECEMBER - 1_500 * MINUTE, 3_000)
    await store.upsert(rows, origin=1, epoch=1)
    for from_ms in BOUNDS:
        for to_ms in BOUNDS:
            for limit in (1, 600, 5_000):
                got = await store.range(*KEY, from_ms=from_ms, to_ms=to_ms, limit=limit)
                wanted = page(rows, from_ms, to_ms, limit)
                assert told(got) == told(wanted), (from_ms, to_ms, limit)
                plain = await store.plain_range(*KEY, from_ms=from_ms, to_ms=to_ms, limit=limit)
                assert plain == [plain_candle(row) for row in wanted], (from_ms, to_ms, limit)
    spans = [(rows[5].open_time, rows[9].open_time), (DECEMBER, DECEMBER + 60 * MINUTE)]
    inside = [row for row in rows if any(since <= row.open_time < until for since, until in spans)]
    columns = await store.spans(*KEY, spans)
    assert columns.open_time == [row.open_time for row in inside]
    assert columns.complete == [row.complete for row in inside]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(columns, name).split(" ") == [str(getattr(row, name)) for row in inside]
    assert await store.range("ETH-USD", "binance", "1m", from_ms=None, to_ms=None, limit=9) == []
    assert await store.range("BTC-USD", "binance", "5m", from_ms=None, to_ms=None, limit=9) == []


@pytest.mark.parametrize("digits", [2, 11])
async def test_points_are_those_of_the_stored_candles(database: Database, digits: int) -> None:
    store = CandleRepository(database)
    rows = stored_minutes(DECEMBER - 1_500 * MINUTE, 3_000, digits=digits)
    await store.upsert(rows, origin=1, epoch=1)
    for from_ms in BOUNDS:
        for to_ms in BOUNDS:
            wanted = page(rows, from_ms, to_ms, 300)
            before = page(
                rows, None, to_ms if from_ms is None else from_ms, 200 + (300 if from_ms is None else 0)
            )
            before = before[: -len(wanted)] if from_ms is None else before
            _, expected = points_of([*before, *wanted], "1m")
            scale, points, lead = await store.points(*KEY, from_ms=from_ms, to_ms=to_ms, limit=300, lead=200)
            assert (facts(points), lead) == (facts(expected), len(before)), (from_ms, to_ms)
            assert [scale.decimal(point.c) for point in points[lead:]] == [row.close for row in wanted]
    assert (await store.points("ETH-USD", "binance", "1m", from_ms=None, to_ms=None, limit=9, lead=9))[
        1:
    ] == ([], 0)
    assert (await store.points("BTC-USD", "binance", "5m", from_ms=None, to_ms=None, limit=9, lead=9))[
        1:
    ] == ([], 0)


@pytest.mark.parametrize("digits", [2, 11])
async def test_history_from_postgres_is_the_live_fold_bit_for_bit(database: Database, digits: int) -> None:
    store = CandleRepository(database)
    rows = stored_minutes(DECEMBER - 1_500 * MINUTE, 3_000, digits=digits)
    await store.upsert(rows, origin=1, epoch=1)
    wanted = page(rows, DECEMBER, None, 400)
    scale, points = points_of([*page(rows, None, DECEMBER, WARM_BARS), *wanted], "1m")
    live = IndicatorSeries(live_studies("1m"), scale)
    finals = [live.commit(point) for point in points][-len(wanted) :]
    found, anchor = await HistoryQueries(store, NothingLive()).fold(
        *KEY, live_studies("1m"), from_ms=DECEMBER, to_ms=None, limit=400
    )
    assert anchor == live.anchor
    assert [(row.open_time, row.close) for row in found] == [(row.open_time, row.close) for row in wanted]
    assert [list(row.values.values()) for row in found] == finals


async def scans(database: Database, query: str, args: tuple[Any, ...]) -> tuple[set[str], int, int]:
    """The relations that a query reads, its pages, and the relations that its plan names."""
    async with database.connection() as connection:
        answer = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *args)
    plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    read, named, nodes = set(), set(), [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            named.add(node["Relation Name"])
            if node["Actual Loops"]:
                read.add(node["Relation Name"])
    return read, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], len(named)


async def test_a_page_of_a_thousand_reads_one_partition_and_few_pages(database: Database) -> None:
    store = CandleRepository(database)
    for month in range(-5, 5):
        await store.upsert(stored_minutes(DECEMBER - month * 30 * DAY, 30, holes=False), origin=1, epoch=1)
    await store.upsert(stored_minutes(DECEMBER + DAY, 3_000, holes=False), origin=1, epoch=1)
    heard = Overheard(database)
    overheard = CandleRepository(heard)  # type: ignore[arg-type]  # as much of a database as a page needs
    start = DECEMBER + DAY + 777 * MINUTE
    assert len(await overheard.plain_range(*KEY, from_ms=start, to_ms=None, limit=1_000)) == 1_000
    assert len(await overheard.range(*KEY, from_ms=None, to_ms=start + 1_000 * MINUTE, limit=1_000)) == 1_000
    assert len(heard.asked) == 2
    for query, args in heard.asked:
        read, pages, named = await scans(database, query, args)
        assert read == {"candles_1m_202412"}
        assert named == 1
        assert pages <= 60
    _, points, lead = await overheard.points(*KEY, from_ms=start, to_ms=None, limit=1_000, lead=700)
    assert (len(points), lead) == (1_700, 700)
    read, pages, _ = await scans(database, *heard.asked[2])
    assert read == {"candles_1m_202412"}
    assert pages <= 100
