"""The loop that makes time pass: trades and quotes from the generator to the venues, periodic work, reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.generator import Generator
from tools.venue_sim.market.market import Market
from tools.venue_sim.venues.site import VenueSite

_TICK_SECONDS: Final = 0.1
_TRIM_SECONDS: Final = 5.0


class Engine:
    """One step: what the generator made since the last one goes to the venue of each pair, then all is written."""

    def __init__(
        self,
        market: Market,
        generator: Generator,
        venues: Sequence[VenueSite],
        faults: Faults,
        *,
        step_seconds: float,
        keep_trades: int,
    ) -> None:
        self._market = market
        self.generator = generator
        self._venues = list(venues)
        self._by_name = {venue.name: venue for venue in venues}
        self._faults = faults
        self._step_seconds = step_seconds
        self._keep_trades = keep_trades
        self._tick_at = self._trim_at = 0.0

    @property
    def trades_made(self) -> int:
        """Live trades since the start."""
        return self.generator.trades_made

    @trades_made.setter
    def trades_made(self, count: int) -> None:
        self.generator.trades_made = count

    @property
    def quotes_made(self) -> int:
        """Live quotes since the start."""
        return self.generator.quotes_made

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started = time.monotonic()
            self.step()
            await asyncio.sleep(max(0.0, self._step_seconds - (time.monotonic() - started)))

    def step(self) -> None:
        """One step, now."""
        trades, quotes = self.generator.step(self._market.now_us())
        by_name = self._by_name
        for pair, made in trades.items():
            venue = by_name.get(pair.instrument.venue)
            if venue is not None:
                venue.publish_trades(pair, made)
        if quotes:
            for name, venue in by_name.items():
                mine = [quote for quote in quotes if quote[0].instrument.venue == name]
                if mine:
                    venue.publish_quotes(mine)
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._faults.tick()
            for venue in self._venues:
                venue.tick(now)
        for venue in self._venues:
            venue.flush()
        if now >= self._trim_at:
            self._trim_at = now + _TRIM_SECONDS
            self._trim()

    def _trim(self) -> None:
        pairs = self._market.all_pairs()
        total = sum(pair.instrument.weight for pair in pairs) or 1.0
        for pair in pairs:
            keep = max(5_000, int(self._keep_trades * pair.instrument.weight / total))
            if len(pair.tape.prices) > keep * 5 // 4:
                pair.tape.trim(keep)
