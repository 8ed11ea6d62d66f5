"""Candle intervals and their UTC buckets. Weeks open on Monday, months on the 1st, all in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, get_args

Interval = Literal["1s", "1m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w", "1M"]
INTERVALS: Final[tuple[Interval, ...]] = get_args(Interval)
PUBLIC_INTERVALS: Final[tuple[Interval, ...]] = INTERVALS[1:]
"""Those that are stored; candles of `1s` are live only."""

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
WEEK_MS: Final = 7 * DAY_MS
FIRST_MONDAY_MS: Final = 4 * DAY_MS
"""1970-01-05, the first Monday of the epoch."""

FIXED_MS: Final[dict[str, int]] = {
    "1s": 1_000,
    "1m": MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "1w": WEEK_MS,
}


def open_time(at_ms: int, interval: str) -> int:
    """The opening time in ms of the bucket that holds `at_ms`. KeyError for an unknown interval."""
    if interval == "1M":
        day = datetime.fromtimestamp(at_ms / 1000, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp() * 1000)
    if interval == "1w":
        return at_ms - (at_ms - FIRST_MONDAY_MS) % WEEK_MS
    return at_ms - at_ms % FIXED_MS[interval]


def next_open(open_ms: int, interval: str) -> int:
    """The opening time of the bucket after the one that opens at `open_ms`."""
    if interval == "1M":
        day = datetime.fromtimestamp(open_ms / 1000, UTC)
        year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
        return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)
    return open_ms + FIXED_MS[interval]


def length_ms(interval: str) -> int:
    """The nominal length in ms; a month counts as 30 days (for limits and estimates, never for buckets)."""
    return 30 * DAY_MS if interval == "1M" else FIXED_MS[interval]
