"""Live series: built from stored bars, restored from states, rebuilt after corrections; always the same values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import PUBLIC_INTERVALS, Interval
from cryptopulse.indicators.application.ports import Changed, PlainCandle
from cryptopulse.indicators.application.query_history import HistoryQueries, plain_candle
from cryptopulse.indicators.application.update_indicators import IndicatorBook, Key, points_of
from cryptopulse.indicators.domain.history import bar_of_candle
from cryptopulse.indicators.domain.points import Point, Scale
from cryptopulse.indicators.domain.registry import live_studies

KEY: Key = ("BTC-USD", "consolidated", "1m")
START = 1_700_000_040_000 // 60_000 * 60_000


class Shelf:
    """A `HistoryStore` in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], dict[int, Candle]] = {}

    async def upsert(self, candles: Sequence[Candle], *, origin: int, epoch: int) -> list[Changed]:
        for candle in candles:
            self.rows.setdefault((candle.symbol, candle.source, candle.interval), {})[candle.open_time] = (
                candle
            )
        return []

    async def check(self, candles: Sequence[Candle], *, epoch: int) -> dict[int, bool]:
        return {}

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
        rows = self.rows.get((symbol, source, interval), {})
        found = [
            rows[at]
            for at in sorted(rows)
            if (from_ms is None or at >= from_ms) and (to_ms is None or at < to_ms)
        ]
        return found[:limit] if from_ms is not None else found[-limit:]

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
        rows = await self.range(symbol, source, interval, from_ms=from_ms, to_ms=to_ms, limit=limit)
        return [plain_candle(row) for row in rows]

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
        key = symbol, source, interval
        if from_ms is None:
            bars = await self.range(*key, from_ms=None, to_ms=to_ms, limit=lead + limit)
            return *points_of(bars, interval), max(0, len(bars) - limit)
        before = await self.range(*key, from_ms=None, to_ms=from_ms, limit=lead)
        wanted = await self.range(*key, from_ms=from_ms, to_ms=to_ms, limit=limit)
        return *points_of([*before, *wanted], interval), len(before)

    async def sources(self, symbol: str) -> list[str]:
        return sorted({key[1] for key in self.rows if key[0] == symbol})


class NothingLive:
    async def forming(self, symbol: str, source: str, interval: Interval) -> list[Candle]:
        return []

    async def values(self, symbol: str, source: str, interval: Interval) -> None:
        return None


def candles(count: int, seed: int = 1) -> list[Candle]:
    dice = random.Random(seed)
    price, found = Decimal("60000.00"), []
    for index in range(count):
        close = price + Decimal(dice.randrange(-500, 501)) / 100
        high, low = max(price, close) + Decimal("0.5"), min(price, close) - Decimal("0.25")
        volume = Decimal(dice.randrange(1, 10**6)) / 10**4
        found.append(
            Candle(
                KEY[0],
                KEY[1],
                "1m",
                START + index * 60_000,
                price,
                high,
                low,
                close,
                volume,
                volume * close,
                5,
                volume,
            )
        )
        price = close
    return found


async def live_book(
    shelf: Shelf, history: Sequence[Candle], live: Sequence[Candle]
) -> tuple[IndicatorBook, list[object]]:
    await shelf.upsert(history, origin=1, epoch=1)
    book = IndicatorBook(shelf)
    book.follow(KEY[0], KEY[1])
    for key in list(book.dirty):
        await book.rebuild(key)
    finals = []
    for candle in live:
        update = book.on_closed(KEY[0], KEY[1], "1m", bar_of_candle(candle), as_of_us=0)
        assert update is not None
        finals.append(update)
        await shelf.upsert([candle], origin=0, epoch=1)
    return book, finals  # type: ignore[return-value]  # a list of updates


async def test_a_restored_book_continues_bit_for_bit() -> None:
    bars = candles(900)
    shelf = Shelf()
    _, finals = await live_book(shelf, bars[:500], bars[500:])
    again = Shelf()
    book, first = await live_book(again, bars[:500], bars[500:700])
    states = book.take_states()
    pending = bars[700:720]
    resumed = IndicatorBook(again)
    assert await resumed.restore(states, pending) == 1
    assert set(resumed.dirty) == {(KEY[0], KEY[1], i) for i in PUBLIC_INTERVALS if i != "1m"}
    second = [resumed.on_closed(KEY[0], KEY[1], "1m", bar_of_candle(bar), as_of_us=0) for bar in bars[720:]]
    for got, want in zip([*first, *[None] * 20, *second], finals, strict=True):
        if got is not None:
            assert got.values == want.values  # type: ignore[attr-defined]  # updates


async def test_history_is_the_fold_that_was_live() -> None:
    bars = candles(900, seed=2)
    shelf = Shelf()
    _, finals = await live_book(shelf, bars[:600], bars[600:])
    rows, anchor = await HistoryQueries(shelf, NothingLive()).fold(
        KEY[0], KEY[1], "1m", live_studies("1m"), from_ms=bars[600].open_time, to_ms=None, limit=1_000
    )
    assert anchor == START
    assert [row.values for row in rows] == [update.values for update in finals]  # type: ignore[attr-defined]  # updates


async def test_a_correction_rebuilds_and_tells_the_changed_bars_only() -> None:
    bars = candles(700, seed=3)
    shelf = Shelf()
    book, finals = await live_book(shelf, bars[:500], bars[500:])
    wrong = bars[690]
    fixed = msgspec.structs.replace(wrong, high=wrong.high + 50, close=wrong.close + 50, revision=1)
    assert book.on_closed(KEY[0], KEY[1], "1m", bar_of_candle(fixed), as_of_us=0) is None
    assert book.dirty == {KEY: fixed.open_time}
    await shelf.upsert([fixed], origin=0, epoch=1)
    updates = await book.rebuild(KEY)
    assert [update.open_time for update in updates] == [bar.open_time for bar in bars[690:]]
    assert {update.revision for update in updates} == {1}
    assert await book.rebuild(KEY) == []
    plain = Shelf()
    corrected = [*bars[:690], fixed, *bars[691:]]
    _, truth = await live_book(plain, corrected[:500], corrected[500:])
    assert [update.values for update in updates] == [update.values for update in truth[190:]]  # type: ignore[attr-defined]  # updates
    assert updates[-1].values != finals[-1].values  # type: ignore[attr-defined]  # updates


async def test_bars_that_close_while_a_series_is_built_are_told_once_in_order() -> None:
    bars = candles(120, seed=4)
    shelf = Shelf()
    await shelf.upsert(bars[:110], origin=0, epoch=1)
    book = IndicatorBook(shelf)
    book.follow(KEY[0], KEY[1])
    for bar in bars[100:120]:
        assert book.on_closed(KEY[0], KEY[1], "1m", bar_of_candle(bar), as_of_us=0) is None
    updates = await book.rebuild(KEY)
    assert [update.open_time for update in updates] == [bar.open_time for bar in bars[100:]]
    assert book.dirty.get(KEY, "built") == "built"


async def test_more_decimals_than_a_series_carries_rebuild_it() -> None:
    bars = candles(60, seed=5)
    shelf = Shelf()
    book, _ = await live_book(shelf, bars[:50], bars[50:])
    last = bars[-1]
    fine = msgspec.structs.replace(
        last, open_time=last.open_time + 60_000, close=last.close + Decimal("1E-12")
    )
    assert book.on_closed(KEY[0], KEY[1], "1m", bar_of_candle(fine), as_of_us=0) is None
    updates = await book.rebuild(KEY)
    assert [update.open_time for update in updates] == [fine.open_time]


async def test_a_forming_bar_with_more_decimals_than_all_stored_ones_is_built_for_once() -> None:
    bars = candles(60, seed=5)
    shelf = Shelf()
    book, _ = await live_book(shelf, bars[:50], bars[50:])
    last = bars[-1]
    forming = bar_of_candle(
        msgspec.structs.replace(
            last, open_time=last.open_time + 60_000, high=last.high + 1, close=last.close + Decimal("1E-12")
        )
    )
    now_ms = forming.open_time + 30_000
    assert book.provisional(KEY, forming, now_ms=now_ms) is None
    assert book.dirty[KEY] is None
    assert await book.rebuild(KEY) == []
    assert book.provisional(KEY, forming, now_ms=now_ms) is not None
    assert KEY not in book.dirty


async def test_a_restored_book_says_what_was_told_last_and_from_which_zones() -> None:
    bars = candles(420)
    shelf = Shelf()
    book, finals = await live_book(shelf, bars[:400], bars[400:])
    book.series[KEY].inside = ["rsi_overbought"]
    second = IndicatorBook(shelf)
    await second.restore(book.take_states(), [])
    told: Any = finals[-1]
    assert second.primes == [(KEY, bars[-1].open_time, told.values, ["rsi_overbought"])]
