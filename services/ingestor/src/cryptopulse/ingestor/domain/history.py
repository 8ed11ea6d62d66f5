"""Which pages of candles to ask for: newest first, whole buckets, within what a venue gives per call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cryptopulse.common.contracts.intervals import Interval, length_ms, next_open, open_time

Reason = Literal["start", "hole", "request", "repair", "check"]


@dataclass(frozen=True, slots=True)
class Series:
    """Candles of one market wanted over [`from_ms`, `to_ms`)."""

    venue: str
    symbol: str
    interval: Interval
    from_ms: int
    to_ms: int
    reason: Reason = "start"

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two requests the same series."""
        return self.venue, self.symbol, self.interval


RANGES_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Covered:
    """Ranges [from, to) in ms whose candles were handed on and confirmed: ascending, apart from each other, at most 8."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Covered:
        """`<from>:<to>,<from>:<to>`; what cannot be read is not covered."""
        found = cls()
        for part in text.split(","):
            start, _, end = part.partition(":")
            if start.isdigit() and end.isdigit() and int(start) < int(end):
                found = found.and_also(int(start), int(end))
        return found

    def __str__(self) -> str:
        return ",".join(f"{start}:{end}" for start, end in self.ranges)

    def and_also(self, start: int, end: int) -> Covered:
        """With one more range; ranges that touch become one, the oldest beyond the bound are forgotten."""
        joined: list[tuple[int, int]] = []
        for low, high in sorted([*self.ranges, (start, end)]):
            if joined and low <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(joined[-1][1], high)
            else:
                joined.append((low, high))
        return Covered(tuple(joined[-RANGES_KEPT:]))

    def below(self, until: int) -> int:
        """Where what is not covered begins, going back in time from `until`: `until` itself, or the start of its range."""
        return next((low for low, high in self.ranges if low < until <= high), until)


def closed_until(now_ms: int, interval: str) -> int:
    """The end of the newest closed bucket: the open bucket begins there."""
    return open_time(now_ms, interval)


def pages(series: Series, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `rows` buckets, newest first, that cover the series exactly, aligned to buckets."""
    start = open_time(series.from_ms, series.interval)
    if start < series.from_ms:
        start = next_open(start, series.interval)
    end = open_time(series.to_ms, series.interval)
    span = rows * length_ms(series.interval)
    while end > start:
        begin = max(start, open_time(end - span, series.interval))
        if begin >= end:
            begin = start
        yield begin, end
        end = begin


def buckets(series: Series) -> int:
    """How many candles the series can hold at most."""
    return max(0, (series.to_ms - series.from_ms) // length_ms(series.interval))
