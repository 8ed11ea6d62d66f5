"""The deterministic past of one instrument: the trades of any past day, and the candles that they fold into."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.venue_sim.market import bars
from tools.venue_sim.market.assets import asset_of
from tools.venue_sim.market.instruments import Instrument
from tools.venue_sim.market.prices import DAY_SECONDS, EPOCH_DAY, MINUTES, PriceModel, keyed, venue_offset

Ints = NDArray[np.int64]

_DAY_US: Final = DAY_SECONDS * 1_000_000
_CACHED_TRADE_DAYS: Final = 64
_CACHED_MINUTE_DAYS: Final = 400
_SIZE_SIGMA: Final = 1.0  # sizes are log-normal: most trades small, a few large


@dataclass(frozen=True, slots=True)
class TradeDay:
    """The trades of one UTC day in columns, in the order of their ids, which count on without a gap."""

    first_id: int
    times_us: Ints
    prices: Ints
    sizes: Ints
    sold: NDArray[np.bool_]

    @property
    def ids(self) -> Ints:
        """The trades' ids."""
        return np.arange(self.first_id, self.first_id + len(self.times_us), dtype=np.int64)


def counts_template(instrument: Instrument) -> Ints:
    """Trades in each of a day's 1,440 minutes before shuffling. Every day has the same sum, so ids can be computed.

    Majors never rest; thin instruments have minutes without any trade.
    """
    mean = instrument.trades_per_minute
    low = 0 if mean < 3 else mean // 2
    cycle = np.arange(low, 2 * mean - low + 1)
    return np.resize(cycle, MINUTES).astype(np.int64)


def minute_size(instrument: Instrument, price: float) -> float:
    """Average size traded in a minute, in units of the size step, at a price in USD."""
    coins = instrument.daily_volume_usd / MINUTES / price
    return float(coins * 10**instrument.size_decimals)


class HistoryCache:
    """Days that were made lately, for all instruments together; any day can be made again."""

    def __init__(self) -> None:
        self.trades: OrderedDict[tuple[str, str, int], TradeDay] = OrderedDict()
        self.minutes: OrderedDict[tuple[str, str, int], bars.Rows] = OrderedDict()


class History:
    """Past trades and candles of one instrument."""

    def __init__(self, model: PriceModel, instrument: Instrument, cache: HistoryCache) -> None:
        self._model = model
        self._instrument = instrument
        self._cache = cache
        self._template = counts_template(instrument)
        self.trades_per_day = int(self._template.sum())
        self._hours: dict[int, bars.Rows] = {}

    def first_id(self, day: int) -> int:
        """Id of the first trade of a day; day numbers count from 1970."""
        return (day - EPOCH_DAY) * self.trades_per_day + 1

    def day_of_id(self, trade_id: int) -> int:
        """The day in which a trade with this id happened."""
        return EPOCH_DAY + (trade_id - 1) // self.trades_per_day

    def trades(self, day: int) -> TradeDay:
        """The trades of a day."""
        key = (self._instrument.venue, self._instrument.symbol, day)
        found = self._cache.trades.get(key)
        if found is None:
            found = self._cache.trades[key] = self._make(day)
            if len(self._cache.trades) > _CACHED_TRADE_DAYS:
                self._cache.trades.popitem(last=False)
        return found

    def minutes(self, day: int) -> bars.Rows:
        """One-minute rows of a day, without the empty minutes."""
        key = (self._instrument.venue, self._instrument.symbol, day)
        found = self._cache.minutes.get(key)
        if found is None:
            found = self._fold(self.trades(day), bars.MINUTE_MS)
            self._cache.minutes[key] = found
            if len(self._cache.minutes) > _CACHED_MINUTE_DAYS:
                self._cache.minutes.popitem(last=False)
        return found

    def hours(self, day: int) -> bars.Rows:
        """One-hour rows of a day; small enough to be kept for years."""
        found = self._hours.get(day)
        if found is None:
            found = self._hours[day] = self._fold(self.trades(day), bars.HOUR_MS)
        return found

    @staticmethod
    def _fold(made: TradeDay, width_ms: int) -> bars.Rows:
        return bars.from_trades(made.times_us, made.prices, made.sizes, made.sold, made.ids, width_ms)

    def _make(self, day: int) -> TradeDay:
        instrument, model = self._instrument, self._model
        random = keyed(model.seed, "trades", instrument.venue, instrument.symbol, day)
        counts = random.permutation(self._template)
        total = self.trades_per_day
        minute = np.repeat(np.arange(MINUTES), counts)
        rank = np.arange(total) - (np.cumsum(counts) - counts)[minute]
        in_minute = (rank + random.random(total)) / counts[minute]
        times_us = day * _DAY_US + ((minute + in_minute) * 60e6).astype(np.int64)
        # What belongs to minutes is computed for 1,440 of them, and only then spread over the trades.
        logs = self._pair_logs(day)
        change = np.diff(logs)
        activity = model.activity(day)
        wobble = _pair_volatility(instrument) / math.sqrt(MINUTES) * np.sqrt(activity)
        noise = random.standard_normal(total) * np.sqrt(in_minute * (1 - in_minute)) * wobble[minute]
        sold = random.random(total) < (0.5 - 0.1 * np.sign(change))[minute]
        scale = 10.0**instrument.price_decimals * venue_offset(
            model.seed, instrument.venue, instrument.base, day * _DAY_US + _DAY_US // 2
        )
        mid = np.exp(logs[minute] + change[minute] * in_minute + noise) * scale
        half_spread = np.maximum(0.5, mid * (instrument.half_spread_bp * 1e-4))
        prices = np.maximum(1, np.rint(mid + np.where(sold, -half_spread, half_spread))).astype(np.int64)
        price_usd = math.exp(float(model.minute_logs(instrument.base, day)[0]))
        share = minute_size(instrument, price_usd) * activity / np.maximum(counts, 1)
        spread = np.exp(_SIZE_SIGMA * random.standard_normal(total) - _SIZE_SIGMA**2 / 2)
        sizes = np.maximum(1, np.rint(share[minute] * spread)).astype(np.int64)
        return TradeDay(self.first_id(day), times_us, prices, sizes, sold)

    def _pair_logs(self, day: int) -> NDArray[np.float64]:
        base = self._model.minute_logs(self._instrument.base, day)
        if self._instrument.quote == "USD":
            return base
        return base - self._model.minute_logs(self._instrument.quote, day)


def _pair_volatility(instrument: Instrument) -> float:
    return max(asset_of(instrument.base).daily_volatility, asset_of(instrument.quote).daily_volatility)
