"""Candles in Postgres: fenced, idempotent upserts and packed ranges, both by whole columns (step 8)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import repeat
from typing import Any, Final

import msgspec

from cryptopulse.common.contracts.candles import Candle, CandleColumns
from cryptopulse.common.contracts.intervals import FIXED_MS, Interval, next_open, open_time
from cryptopulse.common.database.pool import Database
from cryptopulse.indicators.application.ports import Changed, PlainCandle
from cryptopulse.indicators.domain.points import MIN_DIGITS, Point, Scale

PARTITIONED: Final = frozenset({"1m", "5m", "15m", "30m"})
CHUNK: Final = 2_000

# A page is one row of whole columns: a thousand rows of fourteen columns cost the driver more than they cost the server.
# Decimals travel as text, digit for digit, and one text a column is split faster than a thousand are read.
_PACKED: Final = """
SELECT array_agg(open_time), string_agg({text}(open)::text, ' '), string_agg({text}(high)::text, ' '),
       string_agg({text}(low)::text, ' '), string_agg({text}(close)::text, ' '), string_agg({text}(volume)::text, ' '),
       string_agg({text}(quote_volume)::text, ' '), array_agg(trades), string_agg({text}(taker_buy_volume)::text, ' '),
       {ids} array_agg(complete), array_agg(revision), array_agg(simulated)
FROM (SELECT * FROM ({page}) AS unordered ORDER BY open_time) AS page
"""
_WHOLE: Final = partial(_PACKED.format, text="", ids="array_agg(first_id), array_agg(last_id),")
_PLAIN: Final = partial(_PACKED.format, text="trim_scale", ids="")
# The same for a fold: bars before $3 and from it on, as integers once the decimal points are taken out.
_POINTS: Final = """
WITH page AS MATERIALIZED (
    (SELECT open_time, open, high, low, close, volume FROM candles
     WHERE series_id = $1 AND bar_interval = $2 AND open_time < $3 ORDER BY open_time DESC LIMIT $5)
    UNION ALL
    (SELECT open_time, open, high, low, close, volume FROM candles
     WHERE series_id = $1 AND bar_interval = $2 AND open_time >= $3 AND open_time < $4 ORDER BY open_time LIMIT $6)
), digits AS (
    SELECT greatest($7, max(greatest(scale(open), scale(high), scale(low), scale(close))))::int AS price,
           greatest($7, max(scale(volume)))::int AS volume
    FROM page
)
SELECT (SELECT price FROM digits), (SELECT volume FROM digits), array_agg(open_time),
       string_agg(round(open, (SELECT price FROM digits))::text, ' '),
       string_agg(round(high, (SELECT price FROM digits))::text, ' '),
       string_agg(round(low, (SELECT price FROM digits))::text, ' '),
       string_agg(round(close, (SELECT price FROM digits))::text, ' '),
       string_agg(round(volume, (SELECT volume FROM digits))::text, ' ')
FROM (SELECT * FROM page ORDER BY open_time) AS page
"""
_BETWEEN: Final = """
SELECT * FROM candles WHERE series_id = $1 AND bar_interval = $2 AND open_time >= $3 AND open_time < $4
ORDER BY open_time {order} LIMIT $5
"""
_OLDEST: Final = _BETWEEN.format(order="ASC")
_NEWEST: Final = _BETWEEN.format(order="DESC")
# By the opening times: a join with the spans would look into every partition for each of them.
_SPANS: Final = """
SELECT array_agg(open_time), string_agg(open::text, ' '), string_agg(high::text, ' '), string_agg(low::text, ' '),
       string_agg(close::text, ' '), string_agg(volume::text, ' '), array_agg(complete)
FROM (SELECT open_time, open, high, low, close, volume, complete FROM candles
      WHERE series_id = $1 AND bar_interval = $2 AND open_time = ANY($3::bigint[]) AND open_time >= $4 AND open_time <= $5
      ORDER BY open_time) AS bars
"""
FIRST_MS: Final = -(2**62)
LAST_MS: Final = 2**62

# A row gives way to one that is at least as complete and then of at least its origin, and never to an older owner's.
# Saying the same again changes nothing. A venue's own candle over other values counts as a correction of its own; where it
# tells no number of trades, or the one we have, what was built from the trades themselves is exact and stays. What is merged
# from venues (origin -1) is merged anew with each venue's history, which is no correction; it takes the place of what was
# counted live only where it counts no less.
_UPSERT: Final = """
INSERT INTO candles AS c (series_id, bar_interval, open_time, open, high, low, close, volume, quote_volume, trades,
                          taker_buy_volume, first_id, last_id, complete, origin, revision, epoch, simulated)
SELECT s, i, t, o, h, l, cl, v, q, n, b, f, z, m, $19::smallint, r, $18::bigint, x
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[],
            $8::numeric[], $9::numeric[], $10::bigint[], $11::numeric[], $12::bigint[], $13::bigint[], $14::boolean[],
            $15::int[], $16::boolean[], $17::int[])
     AS u(s, i, t, o, h, l, cl, v, q, n, b, f, z, m, r, x, position)
ORDER BY position
ON CONFLICT (series_id, bar_interval, open_time) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume,
    quote_volume = CASE WHEN {keeps} THEN c.quote_volume ELSE excluded.quote_volume END,
    trades = CASE WHEN {keeps} THEN c.trades ELSE excluded.trades END,
    taker_buy_volume = CASE WHEN {keeps} THEN c.taker_buy_volume ELSE excluded.taker_buy_volume END,
    first_id = coalesce(excluded.first_id, c.first_id), last_id = coalesce(excluded.last_id, c.last_id),
    complete = excluded.complete, origin = excluded.origin, epoch = excluded.epoch, simulated = excluded.simulated,
    revision = CASE
        WHEN excluded.revision > c.revision THEN excluded.revision
        WHEN excluded.origin < 0 AND c.origin < 0 THEN c.revision
        WHEN (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
             IS DISTINCT FROM (c.open, c.high, c.low, c.close, c.volume) THEN c.revision + 1
        ELSE c.revision END
WHERE excluded.epoch >= c.epoch
  AND (excluded.complete, excluded.origin) >= (c.complete, c.origin)
  AND (excluded.origin >= 0 OR c.origin < 0 OR excluded.volume >= c.volume)
  AND (excluded.origin > c.origin OR excluded.complete > c.complete OR excluded.revision > c.revision
       OR excluded.origin <> 0)
  AND ((excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.complete)
           IS DISTINCT FROM (c.open, c.high, c.low, c.close, c.volume, c.complete)
       OR (NOT {keeps}
           AND (excluded.quote_volume, excluded.trades, excluded.taker_buy_volume)
               IS DISTINCT FROM (c.quote_volume, c.trades, c.taker_buy_volume)))
RETURNING series_id, bar_interval, open_time, revision, quote_volume, trades, taker_buy_volume
""".format(keeps="(excluded.origin = 1 AND excluded.trades IN (0, c.trades) AND excluded.volume = c.volume)")

# A complete bar built from trades that the venue's own candle equals becomes the venue's own, with all that we know of it.
_CHECK: Final = """
WITH theirs AS (
    SELECT * FROM unnest($3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], $8::numeric[],
                         $9::bigint[]) AS u(open_time, open, high, low, close, volume, trades)
), ours AS (
    SELECT c.open_time, t.trades IN (0, c.trades)
        AND (c.open, c.high, c.low, c.close, c.volume) = (t.open, t.high, t.low, t.close, t.volume) AS is_equal
    FROM candles c JOIN theirs t USING (open_time)
    WHERE c.series_id = $1 AND c.bar_interval = $2 AND c.open_time BETWEEN $10 AND $11
      AND c.origin = 0 AND c.complete AND c.simulated = $12
), verified AS (
    UPDATE candles c SET origin = 1 FROM ours
    WHERE c.series_id = $1 AND c.bar_interval = $2 AND c.open_time = ours.open_time AND ours.is_equal AND c.epoch <= $13
)
SELECT open_time, is_equal FROM ours
"""


class CandleRepository:
    """`CandleStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[tuple[str, str], int] = {}
        self._partitions: set[tuple[str, str]] = set()

    async def upsert(self, candles: Sequence[Candle], *, origin: int, epoch: int) -> list[Changed]:
        """See `CandleStore.upsert`. Of two bars of one place in `candles` the later wins."""
        newest = {(c.symbol, c.source, c.interval, c.open_time): c for c in candles}
        rows = list(newest.values())
        changed: list[Changed] = []
        for start in range(0, len(rows), CHUNK):
            changed += await self._upsert_chunk(rows[start : start + CHUNK], origin, epoch)
        return changed

    async def _upsert_chunk(self, rows: list[Candle], origin: int, epoch: int) -> list[Changed]:
        ids = await self._series_ids((row.symbol, row.source) for row in rows)
        await self._ensure_partitions(rows)
        columns: list[list[Any]] = [
            [ids[row.symbol, row.source] for row in rows],
            [row.interval for row in rows],
            [row.open_time for row in rows],
            [row.open for row in rows],
            [row.high for row in rows],
            [row.low for row in rows],
            [row.close for row in rows],
            [row.volume for row in rows],
            [row.quote_volume for row in rows],
            [row.trades for row in rows],
            [row.taker_buy_volume for row in rows],
            [row.first_id for row in rows],
            [row.last_id for row in rows],
            [row.complete for row in rows],
            [row.revision for row in rows],
            [row.simulated for row in rows],
            list(range(len(rows))),
        ]
        async with self._database.connection() as connection:
            answers = await connection.fetch(_UPSERT, *columns, epoch, origin)
        by_place = {(ids[row.symbol, row.source], row.interval, row.open_time): row for row in rows}
        return [
            Changed(
                _as_stored(
                    by_place[answer["series_id"], answer["bar_interval"], answer["open_time"]], answer
                ),
                corrected=answer["revision"] > 0,
            )
            for answer in answers
        ]

    async def check(self, candles: Sequence[Candle], *, epoch: int) -> dict[int, bool]:
        """See `CandleStore.check`."""
        first, last = candles[0], candles[-1]
        ids = await self._series_ids([(first.symbol, first.source)])
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _CHECK,
                ids[first.symbol, first.source],
                first.interval,
                [row.open_time for row in candles],
                [row.open for row in candles],
                [row.high for row in candles],
                [row.low for row in candles],
                [row.close for row in candles],
                [row.volume for row in candles],
                [row.trades for row in candles],
                first.open_time,
                last.open_time,
                first.simulated,
                epoch,
            )
        return {row["open_time"]: row["is_equal"] for row in rows}

    async def range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Candle]:
        """See `CandleStore.range`."""
        pages = await self._pages(_WHOLE, symbol, source, interval, from_ms, to_ms, limit)
        return [row for page in pages for row in _candles(symbol, source, interval, page)]

    async def plain_range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[PlainCandle]:
        """See `HistoryStore`."""
        pages = await self._pages(_PLAIN, symbol, source, interval, from_ms, to_ms, limit)
        return [row for page in pages for row in _plain_candles(page)]

    async def _pages(
        self,
        packed: Callable[..., str],
        symbol: str,
        source: str,
        interval: Interval,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Any]:
        """The range in one or two packed rows, oldest first.

        Asks for the span that so many bars take up, and for the rest only where bars are missing there: in a few
        partitions, where an open end would have all of them planned.
        """
        series = await self._series_id(symbol, source)
        if series is None:
            return []
        last = LAST_MS if to_ms is None else to_ms
        span = limit * FIXED_MS[interval] if interval in PARTITIONED else LAST_MS - FIRST_MS
        if from_ms is not None:
            query = packed(page=_OLDEST)
            turn = min(from_ms + span, last)
            parts = [(from_ms, turn), (turn, last)]
        else:
            query = packed(page=_NEWEST)
            turn = FIRST_MS if to_ms is None else max(FIRST_MS, last - span)
            parts = [(turn, last), (FIRST_MS, turn)]
        pages = []
        for since, until in parts:
            if since < until and limit > 0:
                page = await self._page(query, series, interval, since, until, limit)
                if page[0] is not None:
                    pages.append(page)
                    limit -= len(page[0])
        return pages if from_ms is not None else pages[::-1]

    async def points(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
        lead: int,
    ) -> tuple[Scale, list[Point], int]:
        """See `HistoryStore`."""
        series = await self._series_id(symbol, source)
        if series is None:
            return Scale(), [], 0
        last = LAST_MS if to_ms is None else to_ms
        split = (last, last, lead + limit, 0) if from_ms is None else (from_ms, last, lead, limit)
        price, volume, times, *columns = await self._page(_POINTS, series, interval, *split, MIN_DIGITS)
        scale = Scale(price, volume)
        if times is None:
            return scale, [], 0
        points = [
            Point(at, o, h, low, c, v, scale, as_of=next_open(at, interval))
            for at, o, h, low, c, v in zip(times, *map(_integers, columns), strict=True)
        ]
        return scale, points, max(0, len(times) - limit) if from_ms is None else bisect_left(times, from_ms)

    async def spans(
        self, symbol: str, source: str, interval: Interval, spans: Sequence[tuple[int, int]]
    ) -> CandleColumns:
        """See `CandleSpans`."""
        series = await self._series_id(symbol, source)
        times = [at for since, until in spans for at in _opens(since, until, interval)]
        if series is None or not times:
            return CandleColumns()
        page = await self._page(_SPANS, series, interval, times, min(times), max(times))
        return CandleColumns() if page[0] is None else CandleColumns(*page)

    async def _page(self, query: str, series: int, interval: Interval, *bounds: Any) -> Any:
        async with self._database.connection() as connection:
            return await connection.fetchrow(query, series, interval, *bounds)

    async def sources(self, symbol: str) -> list[str]:
        """See `CandleStore.sources`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT source FROM series WHERE symbol = $1 ORDER BY source", symbol
            )
        return [row["source"] for row in rows]

    async def drop_before(self, interval: Interval, days: int) -> int:
        """Drop whole partitions older than `days` before the newest stored bar; how many went."""
        async with self._database.connection() as connection:
            newest = await connection.fetchval(
                "SELECT max(newest) FROM series, LATERAL (SELECT open_time AS newest FROM candles "
                "WHERE series_id = series.id AND bar_interval = $1 ORDER BY open_time DESC LIMIT 1) AS n",
                interval,
            )
            if newest is None:
                return 0
            gone: int = await connection.fetchval(
                "SELECT drop_candle_partitions($1, $2)", interval, newest - days * 86_400_000
            )
        if gone:
            self._partitions.clear()
        return gone

    async def _series_id(self, symbol: str, source: str) -> int | None:
        return (await self._series_ids([(symbol, source)], create=False)).get((symbol, source))

    async def _series_ids(
        self, wanted: Iterable[tuple[str, str]], *, create: bool = True
    ) -> dict[tuple[str, str], int]:
        missing = {key for key in wanted if key not in self._ids}
        if missing:
            symbols, sources = [key[0] for key in missing], [key[1] for key in missing]
            async with self._database.connection() as connection:
                if create:
                    await connection.execute(
                        "INSERT INTO series (symbol, source) SELECT * FROM unnest($1::text[], $2::text[]) "
                        "AS u(a, b) ORDER BY a, b ON CONFLICT DO NOTHING",
                        symbols,
                        sources,
                    )
                rows = await connection.fetch(
                    "SELECT id, symbol, source FROM series "
                    "WHERE (symbol, source) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                    symbols,
                    sources,
                )
            for row in rows:
                self._ids[row["symbol"], row["source"]] = row["id"]
        return self._ids

    async def _ensure_partitions(self, rows: Sequence[Candle]) -> None:
        wanted: dict[tuple[str, str], int] = {}
        for row in rows:
            if row.interval in PARTITIONED:
                day = datetime.fromtimestamp(row.open_time / 1000, UTC)
                part = f"{day.year}-{day.month}" if row.interval == "1m" else str(day.year)
                wanted.setdefault((row.interval, part), row.open_time)
        missing = {key: at for key, at in wanted.items() if key not in self._partitions}
        if not missing:
            return
        async with self._database.connection() as connection:
            for (interval, part), at in missing.items():
                await connection.execute("SELECT ensure_candle_partition($1, $2)", interval, at)
                self._partitions.add((interval, part))


def _as_stored(row: Candle, stored: Any) -> Candle:
    if row.revision == stored["revision"] and row.trades == stored["trades"]:
        return row
    return msgspec.structs.replace(
        row,
        revision=stored["revision"],
        quote_volume=stored["quote_volume"],
        trades=stored["trades"],
        taker_buy_volume=stored["taker_buy_volume"],
    )


def _opens(since_ms: int, until_ms: int, interval: Interval) -> Iterator[int]:
    """The times in [since, until) at which a bar opens."""
    at = open_time(since_ms, interval)
    at = at if at == since_ms else next_open(at, interval)
    while at < until_ms:
        yield at
        at = next_open(at, interval)


def _candles(symbol: str, source: str, interval: Interval, page: Any) -> list[Candle]:
    (
        times,
        opens,
        highs,
        lows,
        closes,
        volumes,
        quotes,
        trades,
        takers,
        firsts,
        lasts,
        complete,
        revisions,
        simulated,
    ) = page
    # By position, and without a line of Python a bar: this is the inner loop of every history request.
    return list(
        map(
            Candle,
            repeat(symbol),
            repeat(source),
            repeat(interval),
            times,
            _decimals(opens),
            _decimals(highs),
            _decimals(lows),
            _decimals(closes),
            _decimals(volumes),
            _decimals(quotes),
            trades,
            _decimals(takers),
            firsts,
            lasts,
            repeat(True),
            complete,
            revisions,
            simulated,
        )
    )


def _plain_candles(page: Any) -> Iterator[PlainCandle]:
    times, opens, highs, lows, closes, volumes, quotes, trades, takers, complete, revisions, simulated = page
    texts = (column.split(" ") for column in (opens, highs, lows, closes, volumes, quotes))
    return map(
        PlainCandle, times, *texts, trades, takers.split(" "), repeat(True), complete, revisions, simulated
    )


def _decimals(column: str) -> Iterator[Decimal]:
    return map(Decimal, column.split(" "))


def _integers(column: str) -> Iterator[int]:
    """Numbers of equally many decimals, in units of the last of them."""
    return map(int, column.replace(".", "").split(" "))
