"""Rolling extremes and volumes, each shared by all rules of the same window."""

from __future__ import annotations

from collections import deque
from decimal import Decimal


class RollingExtremes:
    """The lowest and highest price of the last `window_us`, by two monotonic deques: O(1) per price, amortised.

    `push` returns by how many percent the price stands above the window's low and below its high (both >= 0).
    A window holds at most `max_points` changes of its extremes; beyond that neighbours are merged towards the newer
    time, which keeps an extreme a little longer (1/4096 of the window at most in an even market) and never loses it.
    """

    __slots__ = ("_highs", "_lows", "_step_us", "window_us")

    def __init__(self, window_us: int, *, max_points: int = 4096) -> None:
        self.window_us = window_us
        self._step_us = max(1, window_us // max_points)
        self._lows: deque[tuple[int, float]] = deque()
        self._highs: deque[tuple[int, float]] = deque()

    def push(self, at_us: int, price: Decimal | float) -> tuple[float, float]:
        """Take a price in; -> (percent above the low, percent below the high), the price included."""
        value = float(price)
        return self.pass_through(at_us, value, value, value)

    def pass_through(self, at_us: int, low: float, high: float, close: float) -> tuple[float, float]:
        """Take in a way through `low` and `high`, its extremes, that ends at `close`: as pushing each of its prices does."""
        slot = at_us - at_us % self._step_us
        lows, highs = self._lows, self._highs
        while lows and lows[-1][1] >= low:
            lows.pop()
        if not (lows and lows[-1][0] == slot):
            lows.append((slot, low))
        while highs and highs[-1][1] <= high:
            highs.pop()
        if not (highs and highs[-1][0] == slot):
            highs.append((slot, high))
        horizon = at_us - self.window_us
        while lows[0][0] < horizon and len(lows) > 1:
            lows.popleft()
        while highs[0][0] < horizon and len(highs) > 1:
            highs.popleft()
        bottom, top = lows[0][1], highs[0][1]
        return (close / bottom - 1) * 100 if bottom else 0.0, (1 - close / top) * 100 if top else 0.0

    def reach(self, low: float, high: float) -> tuple[float, float]:
        """The most percent above the window's low and below its high that any way through [low, high] can bring from now on."""
        bottom = min(low, self._lows[0][1]) if self._lows else low
        top = max(high, self._highs[0][1]) if self._highs else high
        return (high / bottom - 1) * 100 if bottom else 0.0, (1 - low / top) * 100 if top else 0.0

    def __len__(self) -> int:
        return len(self._lows) + len(self._highs)


class VolumeWindow:
    """Volumes of closed bars of one series; `push` compares each with the mean of those before it."""

    __slots__ = ("_last_open", "_volumes")

    MAX_BARS = 200

    def __init__(self) -> None:
        self._volumes: deque[float] = deque(maxlen=self.MAX_BARS)
        self._last_open = -1

    def push(self, open_ms: int, volume: Decimal | float, bars: tuple[int, ...]) -> dict[int, float]:
        """Take a closed bar in; -> number of bars -> volume / mean of so many bars before it, where there are so many.

        A bar that is not newer than the last (a correction) is ignored; a mean of zero gives nothing.
        """
        if open_ms <= self._last_open:
            return {}
        ratios: dict[int, float] = {}
        have = len(self._volumes)
        past = list(self._volumes)
        for count in bars:
            if have >= count:
                mean = sum(past[have - count :]) / count
                if mean > 0:
                    ratios[count] = float(volume) / mean
        self._volumes.append(float(volume))
        self._last_open = open_ms
        return ratios

    @property
    def last_open(self) -> int:
        """The opening time of the newest bar, -1 before the first."""
        return self._last_open
