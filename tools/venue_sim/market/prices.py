"""The price process: a pure function of seed and time, correlated over assets, with clustered volatility.

Three levels, each drawn from its own keyed generator so that any moment can be computed without the ones before it:
a mean-reverting walk of days, a bridge of minutes inside each day, a bridge of seconds inside each minute.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.venue_sim.market.assets import Asset, asset_of

Floats = NDArray[np.float64]

DAY_SECONDS: Final = 86_400
MINUTES: Final = 1_440
EPOCH_DAY: Final = 18_262  # 2020-01-01, the first day of the walk: nothing is older
_BLOCK: Final = 64
_HORIZON_DAYS: Final = 114 * _BLOCK  # the walk is computed up to 2039
_MEAN_REVERSION: Final = 0.0035  # a day's pull towards the long-run level: half-life about 200 days
_STABLE_REVERSION: Final = 0.15


def keyed(seed: int, *parts: object) -> np.random.Generator:
    """A generator of its own for each name; the same key gives the same numbers for ever."""
    text = "/".join(str(part) for part in (seed, *parts))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.SFC64(key))


def _reverting(steps: Floats, keep: float) -> Floats:
    """The walk x[0] = 0, x[t + 1] = keep * x[t] + steps[t], in blocks so that it needs no loop over its steps."""
    blocks = steps.reshape(-1, _BLOCK)
    powers = keep ** np.arange(1, _BLOCK + 1)
    inside = np.cumsum(blocks / powers, axis=1) * powers
    carried, carries = 0.0, []
    for last in inside[:, -1].tolist():
        carries.append(carried)
        carried = carried * float(powers[-1]) + last
    path = (inside + np.outer(carries, powers)).ravel()
    return np.concatenate(([0.0], path[:-1]))


class PriceModel:
    """USD prices of every asset at any time since 2020, and the activity (volume multiple) of every minute."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._days: dict[str, Floats] = {}
        self._minutes: OrderedDict[tuple[str, int], Floats] = OrderedDict()
        self._market_days: dict[int, tuple[Floats, Floats]] = {}
        self._seconds: dict[str, tuple[int, list[float]]] = {}
        self._factor = keyed(seed, "factor").standard_normal(_HORIZON_DAYS)

    def day_logs(self, asset: Asset) -> Floats:
        """Logarithms of the price at each day's start, 00:00 UTC, from the epoch on."""
        found = self._days.get(asset.symbol)
        if found is None:
            noise = keyed(self.seed, "days", asset.symbol).standard_normal(_HORIZON_DAYS)
            steps = asset.beta * self._factor + math.sqrt(1 - asset.beta**2) * noise
            steps *= asset.daily_volatility
            pull = _MEAN_REVERSION if asset.daily_volatility > 0.006 else _STABLE_REVERSION
            found = self._days[asset.symbol] = math.log(asset.price) + _reverting(steps, 1 - pull)
        return found

    def minute_logs(self, symbol: str, day: int) -> Floats:
        """1,441 logarithms of the USD price: the minutes' starts of a day, and the next day's first."""
        key = (symbol, day)
        found = self._minutes.get(key)
        if found is not None:
            self._minutes.move_to_end(key)
            return found
        asset = asset_of(symbol)
        days = self.day_logs(asset)
        index = min(max(day - EPOCH_DAY, 0), _HORIZON_DAYS - 2)
        market, activity = self._market_day(day)
        noise = keyed(self.seed, "minutes", symbol, day).standard_normal(MINUTES)
        steps = asset.beta * market + math.sqrt(1 - asset.beta**2) * noise
        steps *= np.sqrt(activity) * (asset.daily_volatility / math.sqrt(MINUTES))
        path = np.concatenate(([0.0], np.cumsum(steps)))
        drift = (days[index + 1] - days[index]) - path[-1]
        path += np.linspace(0.0, drift, MINUTES + 1) + days[index]
        self._minutes[key] = path
        if len(self._minutes) > 512:
            self._minutes.popitem(last=False)
        return path

    def activity(self, day: int) -> Floats:
        """Volume multiple of each minute of a day, 1.0 on average: a daily wave, slow clusters and bursts."""
        return self._market_day(day)[1]

    def _market_day(self, day: int) -> tuple[Floats, Floats]:
        found = self._market_days.get(day)
        if found is None:
            random = keyed(self.seed, "market", day)
            market = random.standard_normal(MINUTES)
            knots = np.concatenate(
                (random.standard_normal(48), keyed(self.seed, "market", day + 1, "k").normal(size=1))
            )
            knots[0] = keyed(self.seed, "market", day, "k").normal(size=1)[0]
            slow = np.interp(np.arange(MINUTES) / 30.0, np.arange(49), knots)
            wave = 0.35 * np.sin((np.arange(MINUTES) / MINUTES - 0.35) * 2 * math.pi)
            activity = np.exp(0.45 * slow + wave + 0.25 * random.standard_normal(MINUTES) - 0.17)
            market = np.where(random.random(MINUTES) < 0.002, market * 5.0, market)
            if len(self._market_days) > 2_000:
                self._market_days.clear()
            found = self._market_days[day] = (market, activity)
        return found

    def usd(self, symbol: str, at_us: int) -> float:
        """USD price of an asset at a moment in microseconds; the path that the minutes of `minute_logs` pin down."""
        if symbol == "USD":
            return 1.0
        minute = at_us // 60_000_000
        cached = self._seconds.get(symbol)
        if cached is None or cached[0] != minute:
            cached = (minute, self._second_prices(symbol, minute))
            self._seconds[symbol] = cached
        seconds = (at_us - minute * 60_000_000) / 1_000_000
        whole = int(seconds)
        low, high = cached[1][whole], cached[1][whole + 1]
        return low + (high - low) * (seconds - whole)

    def _second_prices(self, symbol: str, minute: int) -> list[float]:
        day, inside = divmod(minute, MINUTES)
        logs = self.minute_logs(symbol, day)
        asset = asset_of(symbol)
        noise = keyed(self.seed, "seconds", symbol, minute).standard_normal(60)
        noise *= (
            asset.daily_volatility / math.sqrt(DAY_SECONDS) * math.sqrt(float(self.activity(day)[inside]))
        )
        path = np.concatenate(([0.0], np.cumsum(noise)))
        path += np.linspace(0.0, float(logs[inside + 1] - logs[inside]) - path[-1], 61) + logs[inside]
        prices: list[float] = np.exp(path).tolist()
        prices.append(prices[-1])
        return prices


def venue_offset(seed: int, venue: str, base: str, at_us: int) -> float:
    """How far a venue's prices are off the common one, as a factor close to 1: slow waves of about 2 basis points."""
    phase = _phase(seed, venue, base)
    hours = at_us / 3.6e9
    return 1.0 + 1.5e-4 * math.sin(hours * 1.7 + phase) + 0.8e-4 * math.sin(hours * 11.3 + 2 * phase)


_PHASES: dict[tuple[int, str, str], float] = {}


def _phase(seed: int, venue: str, base: str) -> float:
    key = (seed, venue, base)
    found = _PHASES.get(key)
    if found is None:
        found = _PHASES[key] = float(keyed(*key).random()) * 2 * math.pi
    return found


def interpolate(points: list[tuple[float, float]], at: float) -> float:
    """Value of a piecewise linear path; before the first point its value, after the last one that one's."""
    index = bisect_right(points, at, key=lambda point: point[0])
    if index == 0:
        return points[0][1]
    if index == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (at - left) / (right - left)
