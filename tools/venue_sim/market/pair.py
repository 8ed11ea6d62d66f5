"""The running state of one instrument: its tape, its quote, what has been done to it on command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.venue_sim.market import bars
from tools.venue_sim.market.instruments import Instrument
from tools.venue_sim.market.tape import Tape, Trade

# pair, update id, bid, bid size, ask, ask size
Quote = tuple["Pair", int, int, int, int, int]


@dataclass(slots=True)
class VenueClock:
    """How far a venue's clock is off the machine's; a switch of a fault."""

    offset_us: int = 0


@dataclass(frozen=True, slots=True)
class DayStats:
    """The rolling 24 hours up to now, in the instrument's integers."""

    open_ms: int
    close_ms: int
    previous_close: int
    open: int
    high: int
    low: int
    last: int
    last_size: int
    volume: int
    quote_volume: int
    trades: int
    first_id: int
    last_id: int


@dataclass(slots=True, eq=False)
class Pair:
    """One instrument as it trades now. Prices and sizes are integers of its steps."""

    instrument: Instrument
    tape: Tape
    clock: VenueClock
    price_scale: int = field(init=False)
    size_scale: int = field(init=False)
    mid: float = 0.0
    half_spread: float = 1.0
    mean_size: float = 1.0
    priced_us: int = 0
    bid: int = 0
    ask: int = 0
    bid_size: int = 0
    ask_size: int = 0
    update_id: int = 0
    status: str = "TRADING"
    listed: bool = True
    frozen: bool = False
    crossed: bool = False
    quiet: bool = False
    factor: float = 1.0
    script: Any = None
    wants_trades: int = 0
    wants_quotes: int = 0
    wire: Any = None
    announced_id: int = 0
    _stats_base: tuple[int, bars.Rows, int] | None = None

    def __post_init__(self) -> None:
        self.price_scale = 10**self.instrument.price_decimals
        self.size_scale = 10**self.instrument.size_decimals

    @property
    def symbol(self) -> str:
        """The canonical name."""
        return self.instrument.symbol

    @property
    def trading(self) -> bool:
        """Whether trades are made."""
        return self.listed and self.status == "TRADING" and not self.quiet

    def last_trade(self) -> Trade | None:
        """The newest trade, if there is any."""
        found = self.tape.latest(1)
        return found[0] if found else None

    def price_text(self, value: int, decimals: int | None = None) -> str:
        """A price as the venue writes it, with all decimals of its step or with `decimals`."""
        return _text(value, self.instrument.price_decimals, decimals)

    def size_text(self, value: int, decimals: int | None = None) -> str:
        """A size as the venue writes it."""
        return _text(value, self.instrument.size_decimals, decimals)

    def quote_text(self, value: int, decimals: int = 8) -> str:
        """A quote volume, an integer of both steps together, with `decimals` (rounded down beyond them)."""
        return _text(value, self.instrument.price_decimals + self.instrument.size_decimals, decimals)

    def day_stats(self, now_ms: int) -> DayStats:
        """The rolling 24 hours; the closed minutes are folded once a minute, the running one is added each time."""
        minute = now_ms // bars.MINUTE_MS * bars.MINUTE_MS
        start_ms = minute - bars.DAY_MS + bars.MINUTE_MS
        if self._stats_base is None or self._stats_base[0] != minute:
            rows = self.tape.recent_minutes(start_ms)
            before = rows[rows[:, bars.OPEN_TIME] < minute]
            folded = (
                bars.fold_groups(before, np.zeros(len(before), dtype=np.int64)) if len(before) else before
            )
            self._stats_base = (minute, folded, start_ms)
        base = self._stats_base[1]
        current = self.tape.current_minute(now_ms).copy()
        current[:, bars.OPEN_TIME] = 0
        total = bars.merge(base, current)
        newest = self.last_trade()
        if not len(total):
            price = newest[1] if newest else max(1, round(self.mid))
            empty = (newest[0], newest[0]) if newest else (-1, -1)
            return DayStats(start_ms, now_ms, price, price, price, price, price, 0, 0, 0, 0, *empty)
        row = total[0]
        return DayStats(
            open_ms=start_ms,
            close_ms=now_ms,
            previous_close=int(row[bars.OPEN]),
            open=int(row[bars.OPEN]),
            high=int(row[bars.HIGH]),
            low=int(row[bars.LOW]),
            last=int(row[bars.CLOSE]),
            last_size=newest[2] if newest else 0,
            volume=int(row[bars.VOLUME]),
            quote_volume=bars.quote_volume(row),
            trades=int(row[bars.TRADES]),
            first_id=int(row[bars.FIRST_ID]),
            last_id=int(row[bars.LAST_ID]),
        )


def _text(value: int, decimals: int, wanted: int | None) -> str:
    wanted = decimals if wanted is None else wanted
    value = value * 10 ** (wanted - decimals) if wanted >= decimals else value // 10 ** (decimals - wanted)
    if wanted == 0:
        return str(value)
    sign = "-" if value < 0 else ""
    whole, part = divmod(abs(value), 10**wanted)
    return f"{sign}{whole}.{part:0{wanted}d}"


def short(text: str) -> str:
    """A decimal without trailing zeros, as Coinbase writes sizes and prices."""
    return text.rstrip("0").rstrip(".") if "." in text else text
