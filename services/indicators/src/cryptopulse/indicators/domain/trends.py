"""Trends over many symbols: trending score, breadth, dominance, correlation, and the screener's little language."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import log, sqrt
from typing import Final

import numpy as np

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.intervals import PUBLIC_INTERVALS, Interval
from cryptopulse.indicators.domain.registry import OUTPUTS

TRENDING_WEIGHTS: Final[dict[str, float]] = {"change": 0.4, "volume": 0.4, "trades": 0.2}
WINSOR: Final = 3.0
MOST_CONDITIONS: Final = 10
LEAST_OBSERVATIONS: Final = 10


class BadFilterError(ValueError):
    """A filter that cannot be read; the text names the fix."""


def z_scores(values: Mapping[str, float]) -> dict[str, float]:
    """Standard scores within the market, cut at +-3; all 0 when nothing differs."""
    if not values:
        return {}
    mean = sum(values.values()) / len(values)
    deviation = sqrt(sum((value - mean) ** 2 for value in values.values()) / len(values))
    if deviation == 0:
        return dict.fromkeys(values, 0.0)
    return {name: max(-WINSOR, min(WINSOR, (value - mean) / deviation)) for name, value in values.items()}


def trending(
    changes: Mapping[str, float], volume_ratios: Mapping[str, float], trades: Mapping[str, float]
) -> list[tuple[str, float, dict[str, float]]]:
    """Symbols with score and parts, best first: 0.4 z(|1 h change|) + 0.4 z(1 h volume ratio) + 0.2 z(trades)."""
    parts = {
        "change": z_scores({symbol: abs(value) for symbol, value in changes.items()}),
        "volume": z_scores(volume_ratios),
        "trades": z_scores(trades),
    }
    rows = []
    for symbol in changes:
        mine = {name: scores.get(symbol, 0.0) for name, scores in parts.items()}
        score = sum(TRENDING_WEIGHTS[name] * value for name, value in mine.items())
        rows.append((symbol, score, mine))
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def share(flags: Sequence[bool]) -> float | None:
    """The part that is true, None of nothing."""
    return sum(flags) / len(flags) if flags else None


def dominance(coins: Sequence[Coin], most: int = 10) -> tuple[dict[str, float], Decimal | None]:
    """Each leading asset's percent of the known market capitalisation, and that capitalisation in USD."""
    caps = [(coin.symbol.upper(), coin.market_cap) for coin in coins if coin.market_cap is not None]
    total = sum((cap for _, cap in caps), Decimal(0))
    if total == 0:
        return {}, None
    shares: dict[str, float] = {}
    for asset, cap in sorted(caps, key=lambda item: item[1], reverse=True)[:most]:
        shares.setdefault(asset, round(float(cap) * 100 / float(total), 4))
    return shares, total


def correlate(closes: Sequence[Mapping[int, Decimal]], window: int) -> tuple[list[list[float | None]], int]:
    """Pearson correlations of log returns over the newest `window` bars that all series share, and how many returns.

    A series that does not move correlates with nothing (None), also with itself.
    """
    if not closes:
        return [], 0
    shared = set(closes[0])
    for series in closes[1:]:
        shared &= set(series)
    times = sorted(shared)[-(window + 1) :]
    count = len(times) - 1
    if count < LEAST_OBSERVATIONS:
        return [[None] * len(closes) for _ in closes], max(0, count)
    prices = np.array([[log(series[at]) for at in times] for series in closes])
    returns = np.diff(prices, axis=1)
    returns -= returns.mean(axis=1, keepdims=True)
    lengths = np.sqrt((returns**2).sum(axis=1))
    products = returns @ returns.T
    matrix: list[list[float | None]] = []
    for i in range(len(closes)):
        row: list[float | None] = []
        for j in range(len(closes)):
            scale = lengths[i] * lengths[j]
            if scale < 1e-300:
                row.append(None)
            else:
                row.append(1.0 if i == j else float(np.clip(products[i, j] / scale, -1.0, 1.0)))
        matrix.append(row)
    return matrix, count


# --- the screener ------------------------------------------------------------------------------------------------

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION: Final = re.compile(
    r"^\s*([a-z0-9_]+)(?:@([0-9]+[a-zA-Z]))?\s*(<=|>=|<|>|=)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*$"
)
_SHORT: Final[dict[str, str]] = {
    "rsi": "rsi_14",
    "volume_zscore": "volume_zscore_20",
    "volume_z": "volume_zscore_20",
    "volume_ratio": "volume_ratio_20",
    "atr": "atr_14",
    "natr": "natr_14",
    "adx": "adx_14",
    "cci": "cci_20",
    "mfi": "mfi_14",
    "cmf": "cmf_20",
    "stoch_k": "stoch_k_14",
    "stoch_d": "stoch_d_14",
    "realised_volatility": "realised_volatility_30",
}


@dataclass(frozen=True, slots=True)
class Column:
    """An output at an interval, written `rsi_14@1h`."""

    output: str
    interval: Interval

    @property
    def name(self) -> str:
        return f"{self.output}@{self.interval}"


@dataclass(frozen=True, slots=True)
class Condition:
    """`column operator number`. A missing value meets no condition."""

    column: Column
    symbol: str
    number: float

    def holds(self, value: float | None) -> bool:
        """Whether a value meets it."""
        return value is not None and _OPERATORS[self.symbol](value, self.number)


def column_of(text: str, default: Interval = "1h") -> Column:
    """Read `rsi_14@1h` or `rsi_14`. Raises `BadFilterError`."""
    name, _, interval = text.strip().partition("@")
    output = _SHORT.get(name.lower(), name.lower())
    if output not in OUTPUTS:
        raise BadFilterError(f"{name!r:.40} is no live output: GET /indicators lists them")
    found = interval or default
    if found not in PUBLIC_INTERVALS:
        raise BadFilterError(f"{found!r:.10} is no interval: say one of {', '.join(PUBLIC_INTERVALS)}")
    return Column(output, next(one for one in PUBLIC_INTERVALS if one == found))


def conditions_of(text: str) -> list[Condition]:
    """Read `rsi_14@1h<30,volume_zscore@1h>3`. Raises `BadFilterError` that names the part."""
    parts = [part for part in text.split(",") if part.strip()]
    if len(parts) > MOST_CONDITIONS:
        raise BadFilterError(f"at most {MOST_CONDITIONS} conditions")
    found = []
    for part in parts:
        match = _CONDITION.match(part)
        if match is None:
            raise BadFilterError(f"{part.strip()!r:.60} is not like rsi_14@1h<30")
        column = column_of(f"{match[1]}@{match[2]}" if match[2] else match[1])
        found.append(Condition(column, match[3], float(match[4])))
    return found
