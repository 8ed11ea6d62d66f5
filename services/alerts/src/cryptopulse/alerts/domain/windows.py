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
        slot = at_us - at_us % self._step_us
        lows, highs = self._lows, self._highs
        while lows and lows[-1][1] >= value:
            lows.pop()
        if not (lows and lows[-1][0] == slot):
            lows.append((slot, value))
        while highs and highs[-1][1] <= value:
            highs.pop()
        if not (highs and highs[-1][0] == slot):
            highs.append((slot, value))
        horizon = at_us - self.window_us
        while lows[0][0] < horizon and len(lows) > 1:
            lows.popleft()
        while highs[0][0] < horizon and len(highs) > 1:
            highs.popleft()
        low, high = lows[0][1], highs[0][1]
        return (value / low - 1) * 100 if low else 0.0, (1 - value / high) * 100 if high else 0.0

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
