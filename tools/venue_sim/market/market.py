"""The whole market: pairs by venue, clocks, and prices with everything that a script or a fault did to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tools.venue_sim.market import bars
from tools.venue_sim.market.history import History, HistoryCache, minute_size
from tools.venue_sim.market.instruments import TRADING_VENUES, Instrument
from tools.venue_sim.market.pair import Pair, VenueClock
from tools.venue_sim.market.prices import MINUTES, PriceModel, interpolate, venue_offset
from tools.venue_sim.market.tape import Tape

Now = Callable[[], int]

_MINUTE_US: Final = 60_000_000


def machine_us() -> int:
    """The machine's clock in microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Script:
    """A price that is given instead of made: points of (seconds since `started_us`, price)."""

    started_us: int
    points: list[tuple[float, float]]
    hold: bool = True

    def price(self, at_us: int) -> float | None:
        """The price at a moment; None when the path is over and is not held."""
        seconds = (at_us - self.started_us) / 1e6
        if seconds > self.points[-1][0] and not self.hold:
            return None
        return interpolate(self.points, seconds)


class Market:
    """Pairs of the trading venues. `now_us` is the source's clock: the machine's, or a recording's."""

    def __init__(self, now_us: Now = machine_us) -> None:
        self.now_us = now_us
        self.pairs: dict[str, dict[str, Pair]] = {venue: {} for venue in TRADING_VENUES}
        self.natives: dict[str, dict[str, Pair]] = {venue: {} for venue in TRADING_VENUES}
        self.clocks: dict[str, VenueClock] = {venue: VenueClock() for venue in TRADING_VENUES}
        self.listeners: list[Callable[[Pair], None]] = []

    def add(self, pair: Pair) -> None:
        """List a pair."""
        venue = pair.instrument.venue
        self.pairs[venue][pair.symbol] = pair
        self.natives[venue][pair.instrument.native] = pair

    def of(self, venue: str) -> Iterable[Pair]:
        """The pairs that a venue lists."""
        return (pair for pair in self.pairs[venue].values() if pair.listed)

    def all_pairs(self) -> list[Pair]:
        """Every pair of every venue."""
        return [pair for pairs in self.pairs.values() for pair in pairs.values()]

    def native(self, venue: str, name: str) -> Pair | None:
        """A listed pair by the venue's own name."""
        found = self.natives[venue].get(name)
        return found if found is not None and found.listed else None

    def find(self, venue: str, symbol: str) -> Pair | None:
        """A pair by either name, listed or not."""
        return self.pairs.get(venue, {}).get(symbol) or self.natives.get(venue, {}).get(symbol)

    def venue_us(self, venue: str) -> int:
        """The time as the venue's own clock shows it."""
        return self.now_us() + self.clocks[venue].offset_us

    def venue_ms(self, venue: str) -> int:
        """`venue_us` in milliseconds."""
        return self.venue_us(venue) // 1000

    def usd(self, symbol: str, at_us: int | None = None) -> float | None:
        """Price of an asset in USD as this source sees it, or None when it does not know the asset."""
        raise NotImplementedError


@dataclass(slots=True)
class Pressure:
    """What has been done to the synthetic market on command."""

    asset_factor: dict[str, float] = field(default_factory=dict)
    venue_factor: dict[str, float] = field(default_factory=dict)
    rate_factor: float = 1.0
    paused: bool = False


class SyntheticMarket(Market):
    """The seeded market: every pair's history, and its live mid price as a function of time."""

    def __init__(
        self,
        seed: int,
        instruments: Iterable[Instrument],
        *,
        history_days: int,
        live_rate: float,
        now_us: Now = machine_us,
    ) -> None:
        super().__init__(now_us)
        self.seed = seed
        self.model = PriceModel(seed)
        self.pressure = Pressure()
        self.started_us = now_us()
        self._cache = HistoryCache()
        started_day = self.started_us // (bars.DAY_MS * 1000)
        self.listed_from_ms = (started_day - history_days) * bars.DAY_MS
        self.live_rate = live_rate
        self._total_weight = 1.0
        for instrument in instruments:
            history = History(self.model, instrument, self._cache)
            pair = Pair(instrument, Tape(instrument, history), self.clocks[instrument.venue])
            pair.tape.begin(self.started_us, self.listed_from_ms)
            self.add(pair)
        self._total_weight = sum(pair.instrument.weight for pair in self.all_pairs()) or 1.0
        for pair in self.all_pairs():
            self.reprice(pair, self.started_us)

    def list_new(self, instrument: Instrument) -> Pair:
        """List a pair that never traded before: it has no history, and its first trade has the id 1."""
        now_us = self.now_us()
        pair = Pair(instrument, Tape(instrument, None), self.clocks[instrument.venue])
        pair.tape.begin(now_us, now_us // 60_000_000 * 60_000)
        self._total_weight += instrument.weight
        self.add(pair)
        self.reprice(pair, now_us)
        return pair

    def usd(self, symbol: str, at_us: int | None = None) -> float | None:
        """Price in USD by the model, times what a depeg or a fault made of it."""
        try:
            price = self.model.usd(symbol, self.now_us() if at_us is None else at_us)
        except KeyError:
            return None
        return price * self.pressure.asset_factor.get(symbol, 1.0)

    def reprice(self, pair: Pair, at_us: int) -> None:
        """Bring a pair's mid, quote and mean trade size up to a moment. Called a few times a second per active pair."""
        pair.priced_us = at_us
        instrument = pair.instrument
        if not pair.frozen:
            pair.mid = self._mid(pair, at_us)
        mid = pair.mid
        half = pair.half_spread = max(0.5, mid * instrument.half_spread_bp * 1e-4)
        pair.bid = max(1, int(mid - half))
        pair.ask = max(pair.bid + 1, int(mid + half + 0.999))
        minute = at_us // _MINUTE_US
        activity = float(self.model.activity(minute // MINUTES)[minute % MINUTES])
        price_usd = self.usd(instrument.base, at_us) or 1.0
        per_minute = max(0.2, 60.0 * self.live_rate * instrument.weight / self._total_weight)
        pair.mean_size = minute_size(instrument, price_usd) * activity / per_minute
        if not pair.bid_size:
            pair.bid_size = pair.ask_size = int(pair.mean_size * 4) or 1

    def _mid(self, pair: Pair, at_us: int) -> float:
        instrument, pressure = pair.instrument, self.pressure
        if pair.script is not None:
            scripted = pair.script.price(at_us)
            if scripted is not None:
                return float(scripted) * pair.price_scale
            pair.script = None
        model = self.model
        price = model.usd(instrument.base, at_us) / model.usd(instrument.quote, at_us)
        if pressure.asset_factor:
            price *= pressure.asset_factor.get(instrument.base, 1.0) / pressure.asset_factor.get(
                instrument.quote, 1.0
            )
        price *= pressure.venue_factor.get(instrument.venue, 1.0) * pair.factor
        return price * venue_offset(self.seed, instrument.venue, instrument.base, at_us) * pair.price_scale
