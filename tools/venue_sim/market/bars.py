"""Candles as integer rows, and the exact folding of rows into longer intervals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

# Columns of a row. Quote volumes are sums of price x size and outgrow 64 bits over a day: they are kept in two parts,
# value = HIGH * 2^24 + LOW.
OPEN_TIME: Final = 0
OPEN: Final = 1
HIGH: Final = 2
LOW: Final = 3
CLOSE: Final = 4
VOLUME: Final = 5
QUOTE_HIGH: Final = 6
QUOTE_LOW: Final = 7
TRADES: Final = 8
BUY_VOLUME: Final = 9
BUY_QUOTE_HIGH: Final = 10
BUY_QUOTE_LOW: Final = 11
FIRST_ID: Final = 12
LAST_ID: Final = 13
COLUMNS: Final = 14

_LOW_BITS: Final = 24
_LOW_MASK: Final = (1 << _LOW_BITS) - 1

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

INTERVALS_MS: Final[dict[str, int]] = {
    "1s": 1_000,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
    "1M": 0,
}
_MONDAY_OFFSET_MS: Final = 4 * DAY_MS  # 1970-01-05 was the first Monday


def bucket_start(at_ms: int, interval: str) -> int:
    """Start of the interval that holds a moment, in UTC; weeks begin on Monday, months on the first."""
    if interval == "1w":
        return (at_ms - _MONDAY_OFFSET_MS) // (7 * DAY_MS) * (7 * DAY_MS) + _MONDAY_OFFSET_MS
    if interval == "1M":
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
        return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp() * 1000)
    width = INTERVALS_MS[interval]
    return at_ms // width * width


def next_bucket(start_ms: int, interval: str) -> int:
    """Start of the interval after the one that starts at `start_ms`."""
    if interval == "1M":
        return bucket_start(start_ms + 32 * DAY_MS, "1M")
    return start_ms + INTERVALS_MS[interval]


def bucket_starts(times_ms: NDArray[np.int64], interval: str) -> NDArray[np.int64]:
    """`bucket_start` for many moments."""
    if interval == "1w":
        return (times_ms - _MONDAY_OFFSET_MS) // (7 * DAY_MS) * (7 * DAY_MS) + _MONDAY_OFFSET_MS
    if interval == "1M":
        months = times_ms.astype("datetime64[ms]").astype("datetime64[M]").astype("datetime64[ms]")
        return months.astype(np.int64)
    width = INTERVALS_MS[interval]
    return times_ms // width * width


def empty_rows() -> Rows:
    """No rows."""
    return np.empty((0, COLUMNS), dtype=np.int64)


def from_trades(
    times_us: NDArray[np.int64],
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    sold: NDArray[np.bool_],
    ids: NDArray[np.int64],
    width_ms: int,
) -> Rows:
    """Rows of `width_ms` from trades in the order of their ids; a row for each run of trades of the same interval."""
    if not len(times_us):
        return empty_rows()
    starts_ms = times_us // (width_ms * 1000) * width_ms
    firsts = np.concatenate(([0], np.flatnonzero(np.diff(starts_ms)) + 1))
    lasts = np.concatenate((firsts[1:], [len(times_us)])) - 1
    notional = prices * sizes
    bought = np.where(sold, 0, sizes)
    bought_notional = np.where(sold, 0, notional)
    rows = np.empty((len(firsts), COLUMNS), dtype=np.int64)
    rows[:, OPEN_TIME] = starts_ms[firsts]
    rows[:, OPEN] = prices[firsts]
    rows[:, HIGH] = np.maximum.reduceat(prices, firsts)
    rows[:, LOW] = np.minimum.reduceat(prices, firsts)
    rows[:, CLOSE] = prices[lasts]
    rows[:, VOLUME] = np.add.reduceat(sizes, firsts)
    rows[:, BUY_VOLUME] = np.add.reduceat(bought, firsts)
    rows[:, TRADES] = lasts - firsts + 1
    rows[:, FIRST_ID] = ids[firsts]
    rows[:, LAST_ID] = ids[lasts]
    for source, high in ((notional, QUOTE_HIGH), (bought_notional, BUY_QUOTE_HIGH)):
        total = np.add.reduceat(source, firsts)
        rows[:, high] = total >> _LOW_BITS
        rows[:, high + 1] = total & _LOW_MASK
    return rows


def fold(rows: Rows, interval: str) -> Rows:
    """Fold rows, ascending and of a shorter interval, into `interval`. Intervals without trades stay absent."""
    return fold_groups(rows, bucket_starts(rows[:, OPEN_TIME], interval)) if len(rows) else rows


def fold_groups(rows: Rows, starts: NDArray[np.int64]) -> Rows:
    """Fold neighbouring rows that share a start."""
    firsts = np.concatenate(([0], np.flatnonzero(np.diff(starts)) + 1))
    lasts = np.concatenate((firsts[1:], [len(rows)])) - 1
    folded = np.empty((len(firsts), COLUMNS), dtype=np.int64)
    folded[:, OPEN_TIME] = starts[firsts]
    folded[:, OPEN] = rows[firsts, OPEN]
    folded[:, HIGH] = np.maximum.reduceat(rows[:, HIGH], firsts)
    folded[:, LOW] = np.minimum.reduceat(rows[:, LOW], firsts)
    folded[:, CLOSE] = rows[lasts, CLOSE]
    folded[:, FIRST_ID] = rows[firsts, FIRST_ID]
    folded[:, LAST_ID] = rows[lasts, LAST_ID]
    for column in (VOLUME, TRADES, BUY_VOLUME):
        folded[:, column] = np.add.reduceat(rows[:, column], firsts)
    for high in (QUOTE_HIGH, BUY_QUOTE_HIGH):
        low = np.add.reduceat(rows[:, high + 1], firsts)
        folded[:, high] = np.add.reduceat(rows[:, high], firsts) + (low >> _LOW_BITS)
        folded[:, high + 1] = low & _LOW_MASK
    return folded


def merge(older: Rows, newer: Rows) -> Rows:
    """Two ascending sets of the same interval as one; where the last of one is the first of the other, they are folded."""
    if not len(older) or not len(newer):
        return newer if not len(older) else older
    rows = np.concatenate((older, newer))
    return fold_groups(rows, rows[:, OPEN_TIME])


def quote_volume(row: NDArray[np.int64], column: int = QUOTE_HIGH) -> int:
    """The whole quote volume of a row, as an integer of 10^-(price decimals + size decimals)."""
    return (int(row[column]) << _LOW_BITS) + int(row[column + 1])
