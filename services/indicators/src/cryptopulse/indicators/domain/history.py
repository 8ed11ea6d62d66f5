"""Bars of the past: longer ones derived from shorter, venues merged into one, another quote by a rate. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval, length_ms, next_open, open_time
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.indicators.domain.bars import EXACT, Bar, fold_bar, minutes_in
from cryptopulse.indicators.domain.consolidated import SHOWN

DERIVED: Final[dict[str, tuple[Interval, ...]]] = {
    "1m": ("5m", "15m", "30m", "1h"),
    "1h": ("2h", "4h", "6h", "12h", "1d"),
    "1d": ("1w", "1M"),
}
"""Which longer bars are folded from a backfilled interval."""
REFERENCE_DERIVED: Final[dict[str, tuple[Interval, ...]]] = {
    "30m": ("1h",),
    "4h": ("12h", "1d"),
    "1d": ("1w", "1M"),
}
"""The same for the reference source, which has no minutes."""


def bar_of_candle(candle: Candle) -> Bar:
    """A stored candle as a bar that can be folded; `parts` counts its minutes."""
    return Bar(
        open_time=candle.open_time,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        quote_volume=candle.quote_volume,
        trades=candle.trades,
        taker_buy_volume=candle.taker_buy_volume,
        first_id=candle.first_id,
        last_id=candle.last_id,
        complete=candle.complete,
        revision=candle.revision,
        parts=minutes_in(candle.open_time, candle.interval),
        first_minute=candle.open_time,
        last_minute=next_open(candle.open_time, candle.interval) - 60_000,
        simulated=candle.simulated,
    )


def fold_all(open_ms: int, parts: Iterable[Bar]) -> Bar | None:
    """One bar that opens at `open_ms` from its parts, oldest first; None without parts."""
    longer: Bar | None = None
    for part in parts:
        if longer is None:
            longer = msgspec.structs.replace(part, open_time=open_ms, revision=0)
        else:
            fold_bar(longer, part)
    return longer


def derive(rows: Sequence[Candle], interval: Interval) -> list[Candle]:
    """The longer bars that shorter ones (ascending, of one series) make; only those that ended with the newest row.

    A bar is complete when every part is there and complete; corrections of its parts are corrections of it.
    """
    if not rows:
        return []
    end = next_open(rows[-1].open_time, rows[-1].interval)
    groups: dict[int, list[Bar]] = {}
    for row in rows:
        groups.setdefault(open_time(row.open_time, interval), []).append(bar_of_candle(row))
    found = []
    for bucket, parts in groups.items():
        if next_open(bucket, interval) > end:
            continue
        bar = fold_all(bucket, parts)
        if bar is None:
            continue
        bar.complete = bar.complete and bar.parts == minutes_in(bucket, interval)
        bar.revision = sum(part.revision for part in parts)
        found.append(bar.candle(rows[0].symbol, rows[0].source, interval, closed=True))
    return found


def merge_venues(symbol: str, rows_by_venue: Mapping[str, Sequence[Candle]]) -> list[Candle]:
    """One consolidated bar per open time: prices of the venue that turned over most, volumes of all together."""
    by_time: dict[int, list[Candle]] = {}
    for rows in rows_by_venue.values():
        for row in rows:
            by_time.setdefault(row.open_time, []).append(row)
    return [_merged(symbol, by_time[at]) for at in sorted(by_time)]


def _merged(symbol: str, rows: list[Candle]) -> Candle:
    main = max(rows, key=lambda row: row.quote_volume)
    volume, money, taker = main.volume, main.quote_volume, main.taker_buy_volume
    trades = main.trades
    for row in rows:
        if row is not main:
            volume, money = EXACT.add(volume, row.volume), EXACT.add(money, row.quote_volume)
            taker, trades = EXACT.add(taker, row.taker_buy_volume), trades + row.trades
    return msgspec.structs.replace(
        main,
        symbol=symbol,
        source=CONSOLIDATED,
        volume=volume,
        quote_volume=money,
        taker_buy_volume=taker,
        trades=trades,
        first_id=None,
        last_id=None,
        complete=all(row.complete for row in rows),
        revision=0,
    )


def converted(symbol: str, rows: Sequence[Candle], rates: Mapping[int, Decimal]) -> list[Candle]:
    """Bars in another quote, by the closing rate of the same bar; bars without a rate are left out."""
    found = []
    for row in rows:
        rate = rates.get(row.open_time)
        if rate is None:
            continue
        found.append(
            msgspec.structs.replace(
                row,
                symbol=symbol,
                source=CONSOLIDATED,
                open=SHOWN.multiply(row.open, rate),
                high=SHOWN.multiply(row.high, rate),
                low=SHOWN.multiply(row.low, rate),
                close=SHOWN.multiply(row.close, rate),
                quote_volume=SHOWN.multiply(row.quote_volume, rate),
                first_id=None,
                last_id=None,
                revision=0,
            )
        )
    return found


def holes(rows: Sequence[Candle], interval: Interval, *, most: int) -> list[tuple[int, int]]:
    """Ranges [from, to) in ms of bars that are missing between stored ones, or stored and not complete; newest first."""
    length = length_ms(interval)
    found: list[tuple[int, int]] = []
    expected: int | None = None
    for row in rows:
        if expected is not None and row.open_time > expected:
            found.append((expected, row.open_time))
        end = next_open(row.open_time, interval)
        if not row.complete:
            found.append((row.open_time, end))
        expected = end
    joined: list[tuple[int, int]] = []
    for start, end in found:
        if joined and start - joined[-1][1] <= 2 * length:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined[::-1][:most]
