"""Gaps: fetched from the venue while the budget lasts, handed on in order, or declared with their range."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.feeds import TradeGap
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.errors import CryptoPulseError, UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.ports import Venue
from cryptopulse.ingestor.domain.ordering import Gap

REPAIR_SECONDS: Final = 20.0
"""A gap whose repair takes longer no longer holds back what waits behind it; the repair goes on beside it."""
LATE_SECONDS: Final = 600.0
"""So long a venue that fails or limits us is asked for what was passed over; then it is declared missing."""
LATE_REPAIRS: Final = 32
"""So many repairs may go on beside the stream."""
EMPTY_ANSWERS: Final = 3
"""So many answers without the end of the gap: the venue does not have it."""
PARALLEL: Final = 2
GAPS_KEPT: Final = 200

_REPAIRED = counter("cryptopulse_trades_repaired_total", "Trades fetched by REST after a gap.", ("venue",))
_LOST = counter("cryptopulse_trades_lost_total", "Trades that no repair could bring.", ("venue",))
log = get_logger(__name__)


class Repair:
    """Repairs the gaps of one venue. `names` maps symbols to the venue's names."""

    def __init__(
        self,
        venue: Venue,
        ingest: Ingest,
        clock: Clock,
        names: Mapping[str, str],
        *,
        on_loss: Callable[[Gap], None],
    ) -> None:
        self._venue = venue
        self._ingest = ingest
        self._clock = clock
        self._names = names
        self._on_loss = on_loss
        self._slots = asyncio.Semaphore(PARALLEL)
        self._late_slot = asyncio.Semaphore(1)
        self._late: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self.gaps: deque[TradeGap] = deque(maxlen=GAPS_KEPT)

    def tick(self) -> None:
        """Begin to repair what is due."""
        for gap in self._ingest.guard.due(self._clock.now_us()):
            self.begin(gap)

    def begin(self, gap: Gap) -> None:
        """Repair one gap, unless one of its symbol is being repaired."""
        if gap.symbol in self._busy:
            return
        self._busy.add(gap.symbol)
        task = asyncio.create_task(self._repair(gap), name=f"repair {self._venue.name} {gap.symbol}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def running(self) -> int:
        """Repairs under way."""
        return len(self._tasks) + len(self._late)

    async def close(self) -> None:
        """Give up what is under way: the ids are kept, the next start repairs."""
        under_way = [*self._tasks, *self._late]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _repair(self, gap: Gap) -> None:
        log.info(
            "gap found",
            venue=self._venue.name,
            symbol=gap.symbol,
            first=gap.first_id,
            last=gap.last_id,
            size=gap.size,
        )
        found: list[Trade] = []
        is_over = True
        try:
            if gap.size <= self._venue.repair_limit:
                async with self._slots, asyncio.timeout(REPAIR_SECONDS):
                    await self._fetch(gap, found)
        except TimeoutError:
            is_over = False
            log.warning("repair takes long", venue=self._venue.name, symbol=gap.symbol, found=len(found))
        except CryptoPulseError as error:
            log.warning("repair failed", venue=self._venue.name, symbol=gap.symbol, error=str(error))
        except Exception:  # whatever it was: what waits behind the gap must go on
            log.exception("repair: unexpected", venue=self._venue.name, symbol=gap.symbol)
        finally:
            self._busy.discard(gap.symbol)
        lost = self._ingest.repaired(gap, found)
        _REPAIRED.labels(self._venue.name).inc(len(found))
        for hole in lost:
            if is_over or len(self._late) >= LATE_REPAIRS:
                self._declare(hole)
            else:
                task = asyncio.create_task(self._repair_late(hole), name=f"late {hole.symbol}")
                self._late.add(task)
                task.add_done_callback(self._late.discard)

    async def _repair_late(self, hole: Gap) -> None:
        """What the stream went on without: handed on as late when the venue gives it after all, declared otherwise."""
        found: list[Trade] = []
        try:
            async with asyncio.timeout(LATE_SECONDS), self._late_slot:
                await self._fetch(hole, found)
        except (CryptoPulseError, TimeoutError) as error:
            log.warning(
                "late repair failed",
                venue=self._venue.name,
                symbol=hole.symbol,
                error=str(error) or "too slow",
            )
        self._ingest.repaired_late(hole, found)
        _REPAIRED.labels(self._venue.name).inc(len(found))
        have = {trade.trade_id for trade in found}
        for missing in _runs(hole, have):
            self._declare(missing)

    async def _fetch(self, gap: Gap, found: list[Trade]) -> None:
        """Collect into `found`, so that a time-out keeps what came; a venue that fails is asked again until then."""
        native = self._names.get(gap.symbol) or self._venue.native_by_rule(gap.symbol)
        next_id = gap.first_id
        failures = empty = 0
        while empty < EMPTY_ANSWERS:
            try:
                page = await self._venue.trades(native, replace(gap, first_id=next_id))
            except UpstreamUnavailable as error:
                pause = error.retry_after_seconds or min(0.25 * 2**failures, 4.0)
                failures += 1
                log.info(
                    "repair waits",
                    venue=self._venue.name,
                    symbol=gap.symbol,
                    pause=round(pause, 2),
                    error=str(error),
                )
                await asyncio.sleep(pause)
                continue
            found += page
            if page and page[-1].trade_id >= gap.last_id:
                return
            next_id = max((trade.trade_id + 1 for trade in page), default=next_id)
            # a venue's REST may lag behind its stream by about a second
            await asyncio.sleep(0.5 * 2**empty)
            empty += 1

    def _declare(self, hole: Gap) -> None:
        _LOST.labels(self._venue.name).inc(hole.size)
        log.error(
            "trades are missing",
            venue=self._venue.name,
            symbol=hole.symbol,
            first=hole.first_id,
            last=hole.last_id,
        )
        self.gaps.append(
            TradeGap(
                symbol=hole.symbol,
                first_id=hole.first_id,
                last_id=hole.last_id,
                from_us=hole.from_us,
                to_us=hole.to_us,
            )
        )
        self._on_loss(hole)


def _runs(hole: Gap, have: Collection[int]) -> list[Gap]:
    """The ranges of a hole that are still missing."""
    found: list[Gap] = []
    start: int | None = None
    for trade_id in range(hole.first_id, hole.last_id + 2):
        is_missing = trade_id <= hole.last_id and trade_id not in have
        if is_missing and start is None:
            start = trade_id
        elif not is_missing and start is not None:
            found.append(replace(hole, first_id=start, last_id=trade_id - 1))
            start = None
    return found
