"""Risk figures over daily returns: drawdown on the return index, volatility, Sharpe, Sortino, Calmar; 365 days a year."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.portfolio.domain.returns import YEAR_DAYS, Known

FEWEST: Final = 30
"""Below this many daily returns a spread says nothing."""


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall of the index from a peak: positions in the series, `recovered` None while it lasts."""

    depth: float
    peak: int
    trough: int
    recovered: int | None


def max_drawdown(returns: Sequence[float]) -> Drawdown:
    """Index / running peak - 1, the starting value 1 being the first peak (position -1); 0 when it never falls.

    A drawdown ends only by a strictly higher index than the peak.
    """
    index = peak = 1.0
    peak_at = -1
    worst = Drawdown(0.0, -1, -1, None)
    for number, value in enumerate(returns):
        index *= 1.0 + value
        if index > peak:
            if worst.depth < 0 and worst.recovered is None and worst.peak == peak_at:
                worst = Drawdown(worst.depth, worst.peak, worst.trough, number)
            peak, peak_at = index, number
        depth = index / peak - 1.0
        if depth < worst.depth:
            worst = Drawdown(depth, peak_at, number, None)
    return worst


def volatility(returns: Sequence[float], periods: int = YEAR_DAYS) -> Known:
    """Sample standard deviation * sqrt(periods)."""
    spread = _spread(returns)
    return spread if spread.value is None else Known(spread.value * math.sqrt(periods))


def sharpe(returns: Sequence[float], risk_free: float = 0.0, periods: int = YEAR_DAYS) -> Known:
    """(mean - rf/periods) / sd * sqrt(periods)."""
    spread = _spread(returns)
    if spread.value is None:
        return spread
    mean = math.fsum(returns) / len(returns)
    return Known((mean - risk_free / periods) / spread.value * math.sqrt(periods))


def sortino(returns: Sequence[float], risk_free: float = 0.0, periods: int = YEAR_DAYS) -> Known:
    """As Sharpe, over the root mean square of what lies below rf/periods, the mean taken over all n."""
    if len(returns) < FEWEST:
        return Known(None, "fewer-than-30-returns")
    daily = risk_free / periods
    downside = math.sqrt(math.fsum(min(0.0, value - daily) ** 2 for value in returns) / len(returns))
    if downside == 0.0:
        return Known(None, "no-downside")
    mean = math.fsum(returns) / len(returns)
    return Known((mean - daily) / downside * math.sqrt(periods))


def calmar(annual: Known, drawdown: float) -> Known:
    """Annual return / |max drawdown|."""
    if annual.value is None:
        return annual
    return Known(None, "no-drawdown") if drawdown == 0.0 else Known(annual.value / abs(drawdown))


def _spread(returns: Sequence[float]) -> Known:
    if len(returns) < FEWEST:
        return Known(None, "fewer-than-30-returns")
    mean = math.fsum(returns) / len(returns)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1))
    return Known(None, "no-variation") if spread < 1e-15 else Known(spread)
