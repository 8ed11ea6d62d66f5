"""Returns: time-weighted (daily linked), money-weighted (XIRR), on average invested capital. Fractions; None with a reason.

Days are UTC days as integers since 1970. Flows are netted per day first, so that a rotation within a day dilutes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

import pyxirr

from cryptopulse.portfolio.domain.money import ONE, ZERO, money_context

YEAR_DAYS: Final = 365
EPOCH: Final = date(1970, 1, 1)
LOWEST_RATE: Final = -0.999999
HIGHEST_RATE: Final = 1e4


@dataclass(frozen=True, slots=True)
class Known:
    """A figure, or None and why."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DayReturn:
    """One day: value at its end, net flow of the day, its return and the linked index from 1; None while unknown."""

    day: int
    value: Decimal | None
    flow: Decimal
    result: Decimal | None
    index: Decimal | None


def linked(
    values: Sequence[tuple[int, Decimal | None]], flows: Mapping[int, Decimal], before: Decimal = ZERO
) -> list[DayReturn]:
    """r_d = (V_d + out_d) / (V_{d-1} + in_d) - 1: money in counts from the start of its day, money out until its end.

    0 where the denominator is 0. `before` is the value at the end of the day before the first. A day without a value
    has no return; the next known day is linked over the gap, with the flows in between taken as that day's.
    """
    with money_context():
        result: list[DayReturn] = []
        previous, index, waiting = before, ONE, ZERO
        for day, value in values:
            flow = flows.get(day, ZERO)
            waiting += flow
            if value is None:
                result.append(DayReturn(day, None, flow, None, None))
                continue
            inflow, outflow = max(waiting, ZERO), max(-waiting, ZERO)
            base = previous + inflow
            change = (value + outflow) / base - ONE if base > 0 else ZERO
            index *= ONE + change
            result.append(DayReturn(day, value, flow, change, index))
            previous, waiting = value, ZERO
        return result


def time_weighted(days: Sequence[DayReturn]) -> Decimal | None:
    """The product over the days minus 1; None when no day is known."""
    known = [day.index for day in days if day.index is not None]
    return known[-1] - ONE if known else None


def annualised(total: Decimal | None, days: int) -> Known:
    """(1 + R)^(365/days) - 1, only for a year and longer: short periods blown up to a year say nothing."""
    if total is None:
        return Known(None, "no-return")
    if days < YEAR_DAYS:
        return Known(None, "shorter-than-a-year")
    if total <= -1:
        return Known(-1.0)
    return Known(float(ONE + total) ** (YEAR_DAYS / days) - 1.0)


@dataclass(frozen=True, slots=True)
class MoneyWeighted:
    """XIRR of a window: annual effective rate, the same over the period, and whether another root exists."""

    annual: Known
    period: Known
    multiple_roots: bool = False


def money_weighted(flows: Mapping[int, Decimal]) -> MoneyWeighted:
    """Sum a_i / (1+r)^((d_i - d_0)/365) = 0, investor's view: money in negative, money out and closing value positive.

    None when the signs do not change, all flows fall on one day, or no root lies in (-0.999999, 10000). Of several
    roots the one nearest 0 is taken, and said so.
    """
    days = sorted(day for day, amount in flows.items() if amount)
    amounts = [float(flows[day]) for day in days]
    if not days or not (any(a > 0 for a in amounts) and any(a < 0 for a in amounts)):
        return _no_rate("no-sign-change")
    if len(days) < 2:
        return _no_rate("single-day")
    roots = _roots(days, amounts)
    length = days[-1] - days[0]
    if not roots:
        # A few days' gain may be too large for any annual rate in range, and still be a plain rate of the period.
        within = _scanned(days, amounts, length) if length < YEAR_DAYS else []
        period = Known(min(within, key=abs)) if within else Known(None, "no-root")
        return MoneyWeighted(Known(None, "no-root"), period, len(within) > 1)
    rate = min(roots, key=abs)
    return MoneyWeighted(Known(rate), Known((1.0 + rate) ** (length / YEAR_DAYS) - 1.0), len(roots) > 1)


def _no_rate(reason: str) -> MoneyWeighted:
    return MoneyWeighted(Known(None, reason), Known(None, reason))


def _roots(days: Sequence[int], amounts: Sequence[float]) -> list[float]:
    """The library's root, checked, and those that a scan of the range finds besides; closes the library's holes."""
    found: list[float] = []
    dates = [EPOCH + timedelta(days=day) for day in days]
    guess = pyxirr.xirr(dates, list(amounts), silent=True)
    scale = sum(abs(amount) for amount in amounts)
    if guess is not None and math.isfinite(guess) and LOWEST_RATE < guess < HIGHEST_RATE:
        rate = float(guess)
        if abs(_worth(rate, days, amounts)) <= 1e-7 * scale:
            found.append(rate)
    changes = sum(1 for a, b in pairwise(amounts) if a * b < 0)
    if found and changes <= 1:
        return found
    for root in _scanned(days, amounts, YEAR_DAYS):
        if all(abs(root - known) > 1e-6 * max(1.0, abs(root)) for known in found):
            found.append(root)
    return found


def _scanned(days: Sequence[int], amounts: Sequence[float], year: int) -> list[float]:
    """The roots that show as a change of sign between 401 rates, even in their logarithm; `year` is the rate's length."""
    lowest, highest = 1.0 + LOWEST_RATE, 1.0 + HIGHEST_RATE
    grid = [lowest ** (1 - step / 400) * highest ** (step / 400) - 1.0 for step in range(401)]
    values = [_worth(rate, days, amounts, year) for rate in grid]
    return [
        _bisected(low, high, days, amounts, year)
        for (low, at_low), (high, at_high) in pairwise(zip(grid, values, strict=True))
        if math.isfinite(at_low) and math.isfinite(at_high) and at_low * at_high < 0
    ]


def _worth(rate: float, days: Sequence[int], amounts: Sequence[float], year: int = YEAR_DAYS) -> float:
    first = days[0]
    try:
        return math.fsum(
            amount * (1.0 + rate) ** (-(day - first) / year)
            for day, amount in zip(days, amounts, strict=True)
        )
    except OverflowError:
        return math.inf


def _bisected(low: float, high: float, days: Sequence[int], amounts: Sequence[float], year: int) -> float:
    at_low = _worth(low, days, amounts, year)
    for _ in range(200):
        middle = (low + high) / 2
        at_middle = _worth(middle, days, amounts, year)
        if at_middle == 0 or high - low < 1e-14 * max(1.0, abs(middle)):
            return middle
        if at_low * at_middle < 0:
            high = middle
        else:
            low, at_low = middle, at_middle
    return (low + high) / 2


def average_invested(investments: Sequence[tuple[int, Decimal]], from_day: int, to_day: int) -> Decimal:
    """Time-weighted average of invested capital over [from_day, to_day): steps (day, invested from then on).

    Only days with capital invested count. A window of a single day takes the capital itself.
    """
    with money_context():
        steps = sorted(investments)
        total, length = ZERO, 0
        for number, (day, invested) in enumerate(steps):
            start = max(day, from_day)
            end = min(steps[number + 1][0] if number + 1 < len(steps) else to_day, to_day)
            if end > start and invested > 0:
                total += invested * (end - start)
                length += end - start
        if length:
            return total / length
        return max((invested for _, invested in steps), default=ZERO)


def on_average_invested(net: Decimal, average: Decimal) -> Decimal | None:
    """ROAI: net gain over time-weighted average invested capital; None without capital."""
    with money_context():
        return net / average if average > 0 else None


def day_of(text: str) -> int:
    """`2024-03-01` as a day number."""
    return (date.fromisoformat(text) - EPOCH).days


def date_of(day: int) -> date:
    """A day number as a date."""
    return EPOCH + timedelta(days=day)
