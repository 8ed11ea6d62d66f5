"""Dry runs: is a rule valid, does it hold now, and when would it have fired on stored candles."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

from cryptopulse.alerts.application.manage_rules import RuleManager
from cryptopulse.alerts.application.ports import CandleReader
from cryptopulse.alerts.domain.definition import RuleDefinition, source_of_leaf, symbol_of_leaf
from cryptopulse.alerts.domain.dry_run import dry_run
from cryptopulse.alerts.domain.refine import bars_to_refine, coarse_interval
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.http.alert_conditions import (
    Leaf,
    PctChange,
    PriceRange,
    PriceThreshold,
    Trailing,
    VolumeSpike,
)
from cryptopulse.common.contracts.http.alerts import (
    DryRunRequest,
    PreviewFiring,
    PreviewResult,
    ValidateResult,
)
from cryptopulse.common.contracts.intervals import DAY_MS, HOUR_MS, MINUTE_MS, Interval, length_ms, open_time
from cryptopulse.common.errors import FieldError, Invalid

SHOWN: Final = 200
CONCURRENT: Final = 1
MOST_REFINED_MS: Final = 400 * HOUR_MS


class Preview:
    """Use cases of dry runs. At most one is computed at a time: it is pure arithmetic and would starve the evaluation."""

    def __init__(self, rules: RuleManager, candles: CandleReader, clock: Clock) -> None:
        self._rules = rules
        self._candles = candles
        self._clock = clock
        self._turn = asyncio.Semaphore(CONCURRENT)

    async def validate(self, user_id: str, body: DryRunRequest) -> ValidateResult:
        """What creating it would answer, and what is worth a second thought. Raises `Invalid` as creating would."""
        definition = await self._rules.definition(body)
        await self._rules.check_portfolios(user_id, definition)
        standing = await self._rules.standing(user_id, definition)
        warnings = []
        if standing.true and not body.fire_if_true_now:
            warnings.append("The condition holds already: it fires when it becomes true again.")
        if standing.price is None and definition.symbol is not None:
            warnings.append("No price of this market is known at the moment.")
        if definition.trigger == "every_cross" and definition.hysteresis is None:
            warnings.append("every_cross without hysteresis fires at each swing around the threshold.")
        return ValidateResult(
            valid=True,
            symbol=definition.symbol,
            currently_true=standing.true,
            price=standing.price,
            warnings=warnings,
        )

    async def preview(self, user_id: str, body: DryRunRequest) -> PreviewResult:
        """The firings over the last `days`. Raises `Invalid` for conditions that candles do not tell."""
        started = time.perf_counter()
        definition = await self._rules.definition(body)
        symbol, source, interval = _series(definition)
        to_ms = open_time(self._clock.now_ms(), interval)
        from_ms = to_ms - body.days * DAY_MS
        candles, expected = await self._bars(definition, symbol, source, interval, from_ms, to_ms)
        async with self._turn:
            firings = await asyncio.to_thread(dry_run, definition, candles, user_id)
        standing = await self._rules.standing(user_id, definition)
        return PreviewResult(
            symbol=symbol,
            interval=interval,
            from_=datetime.fromtimestamp(from_ms / 1000, UTC),
            to=datetime.fromtimestamp(to_ms / 1000, UTC),
            candles=len(candles),
            count=len(firings),
            firings=[
                PreviewFiring(
                    at=datetime.fromtimestamp(firing.at_ms / 1000, UTC),
                    price=firing.price,
                    direction=firing.direction,
                )
                for firing in firings[-SHOWN:]
            ],
            currently_true=standing.true,
            complete=len(candles) >= expected and all(candle.complete for candle in candles),
            took_ms=round((time.perf_counter() - started) * 1000, 1),
        )

    async def _bars(
        self,
        definition: RuleDefinition,
        symbol: str,
        source: str,
        interval: Interval,
        from_ms: int,
        to_ms: int,
    ) -> tuple[list[Candle], int]:
        """The bars to walk, oldest first, and how many there would be without holes.

        Minutes are read only around the longer bars in which something may be crossed, where that is enough.
        """
        coarse = coarse_interval(definition) if interval == "1m" else None
        if coarse is not None:
            step = length_ms(coarse)
            start, end = open_time(from_ms, coarse), open_time(to_ms, coarse)
            bars = await self._candles.spans(symbol, source, coarse, [(start, end)])
            if len(bars) == (end - start) // step:
                minutes = await self._refined(definition, symbol, source, bars, step)
                if minutes is not None:
                    parts = [part for inside in minutes.values() for part in inside]
                    parts += [bar for bar in bars if bar.open_time not in minutes]
                    parts += await self._candles.spans(symbol, source, "1m", [(end, to_ms)])
                    expected = len(bars) - len(minutes) + (len(minutes) * step + to_ms - end) // MINUTE_MS
                    return sorted(parts, key=lambda candle: candle.open_time), expected
        bars = await self._candles.spans(symbol, source, interval, [(from_ms, to_ms)])
        return bars, (to_ms - from_ms) // length_ms(interval)

    async def _refined(
        self, definition: RuleDefinition, symbol: str, source: str, bars: list[Candle], step: int
    ) -> dict[int, list[Candle]] | None:
        """The minutes of the bars that must be walked by them, by the bar's opening time; None when these are too many."""
        minutes: dict[int, list[Candle]] = {}
        while True:
            wanted = bars_to_refine(definition, bars, minutes)
            if not wanted:
                return minutes
            if (len(minutes) + len(wanted)) * step > MOST_REFINED_MS:
                return None
            minutes |= {bar.open_time: [] for bar in wanted}
            spans = [(bar.open_time, bar.open_time + step) for bar in wanted]
            for minute in await self._candles.spans(symbol, source, "1m", spans):
                minutes[minute.open_time // step * step].append(minute)


def _series(definition: RuleDefinition) -> tuple[str, str, Interval]:
    """The candles that a rule is tried on: one market; bars of volume rules are their own."""
    leaves: list[Leaf] = definition.leaves
    if not all(
        isinstance(leaf, (PriceThreshold, PriceRange, PctChange, Trailing, VolumeSpike)) for leaf in leaves
    ):
        raise Invalid(
            "Only conditions on prices and volumes can be previewed on candles.",
            code="no-preview",
            errors=(
                FieldError(
                    "/condition/type", "no-preview", "use a price, change, trailing or volume condition"
                ),
            ),
        )
    markets = {(symbol_of_leaf(leaf, definition), source_of_leaf(leaf, definition)) for leaf in leaves}
    intervals: set[Interval] = {leaf.interval for leaf in leaves if isinstance(leaf, VolumeSpike)}
    if definition.trigger == "once_per_bar_close":
        intervals.add(definition.bar_interval or "1m")
    if len(markets) > 1 or len(intervals) > 1:
        raise Invalid("A preview takes one market and one interval.", code="no-preview")
    symbol, source = markets.pop()
    return symbol, source, intervals.pop() if intervals else "1m"
