"""Makes the live trades and quotes of the synthetic market: a tight loop over numbers drawn ahead."""

from __future__ import annotations

from typing import Final

import numpy as np

from tools.venue_sim.market.market import SyntheticMarket
from tools.venue_sim.market.pair import Pair, Quote
from tools.venue_sim.market.prices import keyed
from tools.venue_sim.market.tape import Trade

_POOL: Final = 1 << 16
_MASK: Final = _POOL - 1
_REPRICE_US: Final = 100_000
_SIZE_SIGMA: Final = 1.0
_MAX_BACKLOG_SECONDS: Final = 0.5


class Generator:
    """Draws which pair trades next, which way, how deep into the book and how much; weights and shapes are seeded.

    `rate` is trades a second over all venues; `quote_ratio` quotes for each trade. When the machine cannot keep up,
    the backlog is bounded to half a second: the achieved rate then falls below the asked one, and is reported.
    """

    def __init__(self, market: SyntheticMarket, *, rate: float, quote_ratio: float) -> None:
        self.market = market
        self.rate = rate
        self.quote_ratio = quote_ratio
        self.trades_made = 0
        self.quotes_made = 0
        self._random = keyed(market.seed, "live")
        self._cursor = 0
        self._quote_cursor = _POOL // 2
        self._owed = 0.0
        self._owed_quotes = 0.0
        self._last_us = market.now_us()
        self.refill()

    def refill(self) -> None:
        """Draw the pools. Called again when pairs come or go."""
        random = self._random
        pairs = [pair for pair in self.market.all_pairs() if pair.listed]
        weights = np.array([pair.instrument.weight for pair in pairs])
        chosen = random.choice(len(pairs), size=_POOL, p=weights / weights.sum())
        self._sequence: list[Pair] = [pairs[index] for index in chosen.tolist()]
        self._sizes: list[float] = np.exp(
            _SIZE_SIGMA * random.standard_normal(_POOL) - _SIZE_SIGMA**2 / 2
        ).tolist()
        self._depths: list[float] = np.abs(random.standard_normal(_POOL) * 0.8).tolist()
        self._sells: list[bool] = (random.random(_POOL) < 0.5).tolist()

    def step(self, now_us: int) -> tuple[dict[Pair, list[Trade]], list[Quote]]:
        """Everything that happened since the last step: new trades by pair (only where somebody listens; all are
        recorded), and new quotes.
        """
        started_us, self._last_us = self._last_us, max(now_us, self._last_us)
        pressure = self.market.pressure
        elapsed = (self._last_us - started_us) / 1e6
        if pressure.paused or elapsed <= 0:
            return {}, []
        rate = self.rate * pressure.rate_factor
        self._owed = min(self._owed + self._drawn(rate * elapsed), rate * _MAX_BACKLOG_SECONDS + 1)
        trades = int(self._owed)
        self._owed -= trades
        self._owed_quotes = min(
            self._owed_quotes + rate * self.quote_ratio * elapsed, rate * _MAX_BACKLOG_SECONDS + 1
        )
        quotes = int(self._owed_quotes)
        self._owed_quotes -= quotes
        return self._make_trades(trades, started_us, self._last_us), self._make_quotes(quotes, self._last_us)

    def _drawn(self, expected: float) -> float:
        return float(self._random.poisson(expected)) if expected < 50 else expected

    def _make_trades(self, count: int, from_us: int, now_us: int) -> dict[Pair, list[Trade]]:
        sequence, sizes, depths, sells = self._sequence, self._sizes, self._depths, self._sells
        heard: dict[Pair, list[Trade]] = {}
        cursor, made_count = self._cursor, 0
        span = now_us - from_us
        stale_us = now_us - _REPRICE_US
        for number in range(count):
            index = cursor & _MASK
            cursor += 1
            pair = sequence[index]
            if not pair.trading:
                continue
            if pair.priced_us < stale_us:
                self.market.reprice(pair, now_us)
            size = int(pair.mean_size * sizes[index]) or 1
            depth = int(pair.half_spread * depths[index] * 0.5)
            tape = pair.tape
            at_us = from_us + span * (number + 1) // count + pair.clock.offset_us
            made = tape.first_id + len(tape.prices)
            if sells[index]:
                price = pair.bid - depth
                price = max(price, 1)
                tape.sizes.append(-size)
                trade = (made, price, size, at_us, True)
            else:
                price = pair.ask + depth
                tape.sizes.append(size)
                trade = (made, price, size, at_us, False)
            tape.prices.append(price)
            tape.times.append(at_us)
            if pair.wants_trades:
                if pair in heard:
                    heard[pair].append(trade)
                else:
                    heard[pair] = [trade]
            made_count += 1
        self._cursor = cursor
        self.trades_made += made_count
        return heard

    def _make_quotes(self, count: int, now_us: int) -> list[Quote]:
        sequence, sizes, depths = self._sequence, self._sizes, self._depths
        changed: list[Quote] = []
        stale_us = now_us - _REPRICE_US
        cursor = self._quote_cursor
        for _ in range(count):
            index = cursor & _MASK
            cursor += 1
            pair = sequence[index]
            if not pair.wants_quotes or not pair.listed:
                continue
            if pair.priced_us < stale_us:
                self.market.reprice(pair, now_us)
            pair.update_id += 1
            scale = pair.mean_size * 4
            pair.bid_size = int(scale * sizes[index]) or 1
            pair.ask_size = int(scale * sizes[index ^ 1]) or 1
            # The best prices flicker by a part of the spread between two looks at the model.
            bid = max(1, pair.bid - int(pair.half_spread * depths[index] * 0.3))
            ask = pair.ask + int(pair.half_spread * depths[index ^ 1] * 0.3)
            if pair.crossed:
                bid, ask = ask, bid
            changed.append((pair, pair.update_id, bid, pair.bid_size, ask, pair.ask_size))
        self._quote_cursor = cursor
        self.quotes_made += count
        return changed
