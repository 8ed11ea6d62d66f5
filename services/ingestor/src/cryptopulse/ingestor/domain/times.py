"""Venue times to microseconds UTC, and the range of times we believe."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptopulse.common.contracts.values import ValueRefusedError

FIRST_US: Final = 1_262_304_000_000_000
"""2010-01-01: no venue traded before."""
LAST_US: Final = 4_102_444_800_000_000
"""2100-01-01: beyond it a number is not microseconds."""
_MS_LIMIT: Final = 10_000_000_000_000
"""Numbers below are milliseconds (until 2286), above microseconds (since 1970-04-26)."""


def from_ms_or_us(number: int) -> int:
    """Microseconds of a venue's integer time, in ms or us by its size. Raises `ValueRefusedError` outside 2010-2100."""
    us = number * 1_000 if number < _MS_LIMIT else number
    if FIRST_US <= us < LAST_US:
        return us
    raise ValueRefusedError(f"{number} is no time between 2010 and 2100")


def from_rfc3339(text: str) -> int:
    """Microseconds of `2026-08-09T21:05:48.228568804Z`; finer digits are cut. Raises `ValueRefusedError`."""
    head, _, tail = text.partition(".")
    try:
        seconds = _seconds_of(head if tail else head.removesuffix("Z"))
        digits, rest = _digits(tail)
        offset = _offset_us(rest)
        fraction = int(digits[:6].ljust(6, "0") or 0)
    except (ValueError, OverflowError) as error:
        raise ValueRefusedError(f"{text!r:.40} is no RFC 3339 time") from error
    us = seconds * 1_000_000 + fraction - offset
    if FIRST_US <= us < LAST_US:
        return us
    raise ValueRefusedError(f"{text!r:.40} is no time between 2010 and 2100")


@lru_cache(maxsize=64)
def _seconds_of(text: str) -> int:
    """Whole seconds of a date and time; all trades of a second share the text."""
    moment = datetime.fromisoformat(text.replace(" ", "T"))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _digits(tail: str) -> tuple[str, str]:
    if tail[-1:] == "Z" and tail[:-1].isdigit():
        return tail[:-1], "Z"
    for place, letter in enumerate(tail):
        if not letter.isdigit():
            return tail[:place], tail[place:]
    return tail, ""


def _offset_us(rest: str) -> int:
    if rest in ("", "Z"):
        return 0
    sign = {"+": 1, "-": -1}.get(rest[0])
    if sign is None or len(rest) != 6 or rest[3] != ":":
        raise ValueError(rest)
    return sign * (int(rest[1:3]) * 3_600 + int(rest[4:6]) * 60) * 1_000_000
