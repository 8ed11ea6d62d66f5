"""Bars as indicators read them: prices and volumes as integers, so that ties are ties and sums are exact (step 7).

A price is an integer number of 10^-digits; quotients of integers are rounded once, so that values do not depend on
how many digits a series carries.
"""

from __future__ import annotations

from array import array
from decimal import Decimal
from typing import Final

from cryptopulse.indicators.domain.bars import EXACT

RING: Final = 256
"""Closed bars at hand for windows; no study looks further back but `Change`, which reads times and closes only."""
LONG_RING: Final = 1536
"""Times and closes at hand: 24 h of minutes and more."""
MIN_DIGITS: Final = 8


class ScaleExceededError(ValueError):
    """A number has more decimals than its series carries: the series must be rebuilt with more."""


class Scale:
    """How many decimals the integers of one series stand for."""

    __slots__ = ("price", "price_digits", "price_factor", "volume", "volume_digits", "volume_factor")

    def __init__(self, price_digits: int = MIN_DIGITS, volume_digits: int = MIN_DIGITS) -> None:
        self.price_digits = price_digits
        self.volume_digits = volume_digits
        self.price = 10**price_digits
        self.volume = 10**volume_digits
        self.price_factor = Decimal(self.price)
        self.volume_factor = Decimal(self.volume)

    @staticmethod
    def integer(value: Decimal, factor: Decimal) -> int:
        """`value * factor`, exactly, for a power of ten. Raises `ScaleExceededError` when that is no integer."""
        shifted = EXACT.multiply(value, factor)
        number = int(shifted)
        if number != shifted:
            raise ScaleExceededError(f"{value} times {factor} is no integer")
        return number

    def decimal(self, price: int) -> Decimal:
        """A price in units of this scale as it was written, but for zeros at its end."""
        return EXACT.scaleb(Decimal(price), -self.price_digits)


def digits_of(value: Decimal) -> int:
    """The number of decimals that a finite value is written with."""
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


class Point:
    """One bar for indicators. `open_time` in ms; `o h l c` in price units, `v` in volume units, `fc` the close as float.

    `as_of` is the time in ms up to which trades are in it: the end of a closed bar. `fraction` is the part of the
    bar's time that has passed, 1 for a closed one.
    """

    __slots__ = ("as_of", "c", "fc", "fraction", "h", "l", "o", "open_time", "ps", "tp", "v", "vs")

    def __init__(
        self, open_time: int, o: int, h: int, l: int, c: int, v: int, scale: Scale, *, as_of: int, fraction: float = 1.0
    ) -> None:  # fmt: skip
        self.open_time = open_time
        self.o = o
        self.h = h
        self.l = l
        self.c = c
        self.v = v
        self.ps = scale.price
        self.vs = scale.volume
        self.fc = c / scale.price
        self.tp = h + l + c
        self.as_of = as_of
        self.fraction = fraction


class Window:
    """The closed bars at hand of one series, newest last, and how many there were since its anchor."""

    __slots__ = ("closes", "count", "fcloses", "highs", "lows", "times", "typical", "volumes")

    def __init__(self) -> None:
        self.count = 0
        self.highs: list[int] = []
        self.lows: list[int] = []
        self.closes: list[int] = []
        self.volumes: list[int] = []
        self.typical: list[int] = []
        self.times: array[int] = array("q")
        self.fcloses: array[float] = array("d")

    def push(self, bar: Point) -> None:
        """Take a closed bar in."""
        self.count += 1
        self.highs.append(bar.h)
        self.lows.append(bar.l)
        self.closes.append(bar.c)
        self.volumes.append(bar.v)
        self.typical.append(bar.tp)
        self.times.append(bar.as_of)
        self.fcloses.append(bar.fc)
        if len(self.closes) >= 2 * RING:
            for ring in (self.highs, self.lows, self.closes, self.volumes, self.typical):
                del ring[:-RING]
        if len(self.times) >= 2 * LONG_RING:
            del self.times[:-LONG_RING]
            del self.fcloses[:-LONG_RING]

    def copy(self) -> Window:
        """An independent copy."""
        twin = Window()
        twin.count = self.count
        twin.highs, twin.lows = self.highs[-RING:], self.lows[-RING:]
        twin.closes, twin.volumes = self.closes[-RING:], self.volumes[-RING:]
        twin.typical = self.typical[-RING:]
        twin.times, twin.fcloses = self.times[-LONG_RING:], self.fcloses[-LONG_RING:]
        return twin
