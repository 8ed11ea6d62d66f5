"""Coinbase's own bars of a second, a minute and a day agree with each other: folded as we fold, one gives the next."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

from cryptopulse.common.contracts.intervals import DAY_MS, MINUTE_MS, next_open, open_time
from cryptopulse.indicators.domain.bars import EXACT, ZERO, Bar, Run
from cryptopulse.indicators.domain.candle_series import LONGER, CandleSeries, Closed

DAYS = ("20161007", "20170903", "20170904", "20180404", "20180405", "20180406")
FLOAT_DUST = Decimal("0.000001")
"""The days' volumes were once summed as floats; everything else agrees to the last digit."""

Row = tuple[Decimal, Decimal, Decimal, Decimal, Decimal]


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "recordings" / "ohlcv_lean"


def rows_of(path: Path) -> dict[int, Row]:
    """Open, high, low, close and volume by the time of the open in ms."""
    with gzip.open(path, "rt") as lines:
        found = {}
        for line in csv.DictReader(lines):
            opened, high, low, close, volume = (
                Decimal(line[name]) for name in ("open", "high", "low", "close", "volume")
            )
            found[int(line["open_time_ms"])] = (opened, high, low, close, volume)
    return found


def folded(rows: dict[int, Row]) -> Iterator[tuple[str, Bar]]:
    """Every bar that closes when the rows come in their order, and the day with the midnight after them."""
    series = CandleSeries("BTC-USD", "coinbase", dense_ids=False)
    with localcontext(EXACT):
        for at_ms, (opened, high, low, close, volume) in rows.items():
            run = Run(
                open_time(at_ms, "1m"), opened, high, low, close, volume, volume * close, 1, ZERO, None, None,
                at_ms * 1_000,
            )  # fmt: skip
            yield from _closed(series.add(run, closes=True))
        yield from _closed(series.close_before(next_open(open_time(max(rows), "1d"), "1d")))


def _closed(events: Sequence[object]) -> Iterator[tuple[str, Bar]]:
    for event in events:
        assert isinstance(event, Closed)
        yield event.interval, event.bar


def row(bar: Bar) -> Row:
    return bar.open, bar.high, bar.low, bar.close, bar.volume


def assert_same_day(made: Row, official: Row) -> None:
    assert made[:4] == official[:4]
    assert abs(made[4] - official[4]) <= FLOAT_DUST


def test_seconds_fold_into_the_venues_minutes_and_its_day(folder: Path) -> None:
    minutes = rows_of(folder / "coinbase_btcusd_1m_20161007.csv.gz")
    days = rows_of(folder / "coinbase_btcusd_1d_2014_2018.csv.gz")
    made = list(folded(rows_of(folder / "coinbase_btcusd_1s_20161007.csv.gz")))
    assert {bar.open_time: row(bar) for interval, bar in made if interval == "1m"} == minutes
    assert len(minutes) == 1_419
    (day,) = [bar for interval, bar in made if interval == "1d"]
    assert_same_day(row(day), days[day.open_time])


@pytest.mark.parametrize("name", DAYS)
def test_minutes_fold_into_the_venues_day_and_no_interval_loses_any(folder: Path, name: str) -> None:
    minutes = rows_of(folder / f"coinbase_btcusd_1m_{name}.csv.gz")
    days = rows_of(folder / "coinbase_btcusd_1d_2014_2018.csv.gz")
    made = list(folded(minutes))
    assert {bar.open_time: row(bar) for interval, bar in made if interval == "1m"} == minutes
    (day,) = [bar for interval, bar in made if interval == "1d"]
    assert day.open_time == min(minutes) // DAY_MS * DAY_MS
    assert_same_day(row(day), days[day.open_time])
    parts: Counter[str] = Counter({interval: 0 for interval in LONGER if next_open(0, interval) <= DAY_MS})
    for interval, bar in made:
        if interval in parts:
            parts[interval] += bar.parts
            inside = [r for at, r in minutes.items() if open_time(at, interval) == bar.open_time]
            assert row(bar)[1:3] == (max(r[1] for r in inside), min(r[2] for r in inside))
            assert (bar.open, bar.close) == (inside[0][0], inside[-1][3])
    assert set(parts.values()) == {len(minutes)}


def test_every_minute_that_the_venue_has_lies_on_the_grid(folder: Path) -> None:
    for path in sorted(folder.glob("*_1m_*.csv.gz")):
        assert all(at % MINUTE_MS == 0 for at in rows_of(path)), path.name
