"""When a delivery is tried again, and when an endpoint is given a rest or given up: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

DELAYS_SECONDS: Final = (5, 30, 300, 1_800, 7_200, 18_000, 36_000)
"""Pauses after the 1st, 2nd ... failed attempt: 0, 5 s, 30 s, 5 min, 30 min, 2 h, 5 h, 10 h; eight attempts."""
JITTER: Final = 0.2
MAX_RETRY_AFTER_SECONDS: Final = 3_600
MAX_AGE_SECONDS: Final = 86_400
"""A price alert ages: nothing is tried later than this after the event."""
SLOW_DOWN: Final = frozenset({429, 502, 503, 504})

Verdict = Literal["delivered", "retry", "exhausted", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from an attempt; `pause_seconds` with `retry`. `slow_down` rests the whole endpoint for that long."""

    verdict: Verdict
    pause_seconds: float = 0.0
    slow_down: bool = False


def judge(
    *,
    status: int | None,
    attempts: int,
    age_seconds: float,
    retry_after: str | None,
    jitter: float,
    now_ms: int,
) -> Outcome:
    """The outcome of the attempt number `attempts` (from 1). `status` None: no answer. `jitter` in [-1, 1].

    Only 2xx is success; redirects are failures. 410 ends it and disables the endpoint. `Retry-After` lengthens the
    pause, up to an hour.
    """
    if status is not None and 200 <= status < 300:
        return Outcome("delivered")
    if status == 410:
        return Outcome("gone")
    if attempts > len(DELAYS_SECONDS):
        return Outcome("exhausted")
    pause = DELAYS_SECONDS[attempts - 1] * (1 + JITTER * jitter)
    asked = retry_after_seconds(retry_after, now_ms)
    slow_down = status in SLOW_DOWN
    if asked is not None:
        pause = max(pause, min(asked, MAX_RETRY_AFTER_SECONDS))
    if age_seconds + pause > MAX_AGE_SECONDS:
        return Outcome("exhausted")
    return Outcome("retry", pause, slow_down)


def retry_after_seconds(text: str | None, now_ms: int) -> float | None:
    """The `Retry-After` header as seconds from now: a number or an HTTP date; None when absent or unreadable."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds())


BREAK_AFTER: Final = 5
"""Consecutive failures of an endpoint that open its circuit."""
OPEN_SECONDS: Final = 60
MAX_OPEN_SECONDS: Final = 3_600
DISABLE_AFTER_SECONDS: Final = 5 * 86_400
DISABLE_AFTER_MESSAGES: Final = 50


def open_seconds(failures: int) -> float:
    """How long an endpoint rests after `failures` in a row: 0 below 5, then a minute, doubling up to an hour."""
    if failures < BREAK_AFTER:
        return 0.0
    return float(min(OPEN_SECONDS * 2 ** min(failures - BREAK_AFTER, 10), MAX_OPEN_SECONDS))


def gives_up(*, failing_for_seconds: float, failed_messages: int) -> bool:
    """True when an endpoint is to be disabled: only failures for five days, or 50 messages in a row given up."""
    return failing_for_seconds >= DISABLE_AFTER_SECONDS or failed_messages >= DISABLE_AFTER_MESSAGES
