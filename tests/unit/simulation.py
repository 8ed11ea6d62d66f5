"""A seeded simulation in one process: a venue, the ingestor's guard, the memory bus, a shard's worker; a clock moved by hand.

Between the venue and the guard frames are lost, doubled, delayed and reordered; the ingestor and the worker die at random. What
is real: the gap guard, the bus (its memory twin), the shard's worker with its snapshots. What stands in: the stores' tables (dicts)
and the venue's REST (its ledger).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from cryptopulse.common.bus.memory import MemoryBroker, MemoryBus
from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.common.contracts.topics import HISTORY, TICKS, Queue, shard_of
from cryptopulse.common.contracts.values import Side
from cryptopulse.indicators.application.ports import Changed
from cryptopulse.indicators.application.shard import ShardWorker
from cryptopulse.ingestor.domain.ordering import Gap, TradeGuard

SYMBOL, VENUE = "BTC-USDT", "binance"
SHARD = shard_of("BTC", 4)
MINUTES, TRADES = 4, 240
MINUTE_US = 60_000_000
START_US = 1_700_000_040_000_000
"""A whole minute."""
HOLD_US = 2_000_000


@dataclass(frozen=True)
class Chances:
    """How bad the world is, per frame or step."""

    lost: float = 0.04
    doubled: float = 0.04
    late: float = 0.10
    ingestor_dies: float = 0.01
    worker_dies: float = 0.02


def ledger(source: random.Random) -> list[Trade]:
    """The venue's own book of trades: gapless ids, rising times, a walking price."""
    price = Decimal(67000)
    times = sorted(source.randrange(MINUTES * MINUTE_US) for _ in range(TRADES))
    found = []
    for number, at in enumerate(times):
        price += Decimal(source.randint(-50, 50)) / 10
        size = Decimal(source.randint(1, 9999)) / 10_000
        side: Side = source.choice(("buy", "sell"))
        found.append(Trade(SYMBOL, 1_000 + number, price, size, side, START_US + at, START_US + at, 0))
    return found


def minutes_of(
    trades: Sequence[Trade],
) -> dict[int, tuple[Decimal, Decimal, Decimal, Decimal, Decimal, int, int, int]]:
    """The candles that the ledger says there are."""
    found: dict[int, list[Trade]] = {}
    for trade in trades:
        found.setdefault((trade.event_us - trade.event_us % MINUTE_US) // 1000, []).append(trade)
    return {
        start: (
            rows[0].price,
            max(row.price for row in rows),
            min(row.price for row in rows),
            rows[-1].price,
            sum((row.size for row in rows), Decimal(0)),
            len(rows),
            rows[0].trade_id,
            rows[-1].trade_id,
        )
        for start, rows in found.items()
    }


@dataclass
class Tables:
    """The stores: candles, snapshots. They outlive every process."""

    rows: dict[tuple[str, str, str, int], tuple[Candle, int]] = field(default_factory=dict)
    snapshot: tuple[int, bytes] | None = None
    series: dict[str, bytes] = field(default_factory=dict)
    published: list[Candle] = field(default_factory=list)
    seconds_told: list[Candle] = field(default_factory=list)

    async def upsert(self, candles: Sequence[Candle], *, origin: int, epoch: int) -> list[Changed]:
        changed = []
        for offered in candles:
            candle = offered
            key = (candle.symbol, candle.source, candle.interval, candle.open_time)
            old = self.rows.get(key)
            if old is not None:
                revision = max(candle.revision, old[0].revision)
                candle = msgspec.structs.replace(candle, revision=revision)
                if epoch < old[1] or candle == old[0]:
                    continue
            self.rows[key] = (candle, epoch)
            changed.append(Changed(candle, corrected=old is not None))
        return changed

    async def check(self, candles: Sequence[Candle], *, epoch: int) -> dict[int, bool]:
        return {}

    async def range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Candle]:
        found = sorted(
            (
                candle
                for (s, v, i, _), (candle, _) in self.rows.items()
                if (s, v, i) == (symbol, source, interval)
            ),
            key=lambda candle: candle.open_time,
        )
        found = [c for c in found if (from_ms or 0) <= c.open_time < (to_ms or 1 << 62)]
        return found[:limit] if from_ms is not None else found[-limit:]

    async def sources(self, symbol: str) -> list[str]:
        return sorted({source for s, source, _, _ in self.rows if s == symbol})

    async def save_snapshot(self, shard: int, epoch: int, state: bytes) -> bool:
        if self.snapshot is not None and self.snapshot[0] > epoch:
            return False
        self.snapshot = (epoch, state)
        return True

    async def load_snapshot(self, shard: int) -> bytes | None:
        return None if self.snapshot is None else self.snapshot[1]

    async def save_series(self, shard: int, states: dict[str, bytes]) -> None:
        self.series.update(states)

    async def load_series(self, shard: int) -> dict[str, bytes]:
        return dict(self.series)

    async def write(self, *_: Any) -> None:
        return None

    async def write_scores(self, scores: Mapping[Any, Any], gone: Sequence[str]) -> None:
        return None

    async def write_signals(self, signals: Sequence[Any]) -> None:
        return None

    async def prices(self, *_: Any) -> None:
        return None

    async def candles(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None:
        self.published += [candle for candle in candles if candle.source == VENUE and candle.interval == "1m"]

    async def seconds(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None:
        self.seconds_told += candles

    def contradictions(self) -> list[Candle]:
        """Live seconds that were told before under the same revision with other values."""
        known: dict[tuple[str, str, int, int], Candle] = {}
        places = [((bar.symbol, bar.source, bar.open_time, bar.revision), bar) for bar in self.seconds_told]
        return [bar for place, bar in places if known.setdefault(place, bar) != bar]

    async def live_values(self, *_: Any) -> None:
        return None

    async def closed_values(self, *_: Any) -> None:
        return None

    async def signals(self, signals: Sequence[Any]) -> None:
        return None

    async def ask(self, *_: Any, **__: Any) -> None:
        return None


class World:
    """One run of one seed."""

    def __init__(
        self, seed: int, chances: Chances, *, ack_before_work: bool = False, repairs: bool = True
    ) -> None:
        self.ack_before_work = ack_before_work
        self.repairs = repairs
        self.random = random.Random(seed)
        self.chances = chances
        self.clock = ManualClock(START_US // 1000)
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, service="simulation", clock=self.clock)
        self.tables = Tables()
        self.book = ledger(self.random)
        self.guard = TradeGuard(hold_us=HOLD_US)
        self.outbox: list[Trade] = []
        self.sent: tuple[int, int] | None = None
        self.seq = 0
        self.epoch = 0
        self.deaths = 0
        self.worker: ShardWorker

    async def run(self) -> None:
        """From the first frame to the last candle."""
        await self._worker_starts()
        arrivals = self._arrivals()
        for at_us, trade in arrivals:
            self._move_to(at_us)
            self._receive(msgspec.structs.replace(trade, received_us=at_us))
            self._repair_due()
            if self.random.random() < self.chances.ingestor_dies:
                self._ingestor_restarts()
            elif self.random.random() < 0.3:
                await self._publish()
            await self._worker_step()
        await self._finish()

    def _arrivals(self) -> list[tuple[int, Trade]]:
        # Where a market begins is what arrives first: nothing could tell that there was one before it.
        first, *others = self.book
        found = [(first.event_us, first)]
        for trade in others:
            if self.random.random() < self.chances.lost:
                continue
            for _ in range(2 if self.random.random() < self.chances.doubled else 1):
                delay = (
                    self.random.randrange(3_000_000) if self.random.random() < self.chances.late else 5_000
                )
                found.append((trade.event_us + delay, trade))
        return sorted(found, key=lambda item: item[0])

    def _move_to(self, at_us: int) -> None:
        self.clock.advance(max(0, at_us - self.clock.now_us()) / 1e6)

    # --- the ingestor ------------------------------------------------------------------------------------------

    def _receive(self, trade: Trade) -> None:
        if self.guard.offer(trade):
            self.outbox.append(trade)
        else:
            self.outbox += self.guard.settle(trade)

    def _repair_due(self) -> None:
        for gap in self.guard.due(self.clock.now_us()):
            self._repair(gap)

    def _repair(self, gap: Gap) -> None:
        now = self.clock.now_us()
        served = [
            msgspec.structs.replace(trade, received_us=now)
            for trade in self.book
            if self.repairs and gap.first_id <= trade.trade_id <= gap.last_id
        ]
        passed, lost = self.guard.repaired(gap, served)
        assert not lost or not self.repairs
        self.outbox += passed

    async def _publish(self) -> None:
        batch, self.outbox = self.outbox, []
        if not batch:
            return
        self.seq += 1
        message = TickBatch(
            venue=VENUE,
            shard=SHARD,
            epoch=1,
            seq=self.seq,
            sent_us=self.clock.now_us(),
            trades=batch,
            clock_offset_us=0,
        )
        copies = 2 if self.random.random() < self.chances.doubled else 1
        for _ in range(copies):
            await self.bus.publish(TICKS, message, key=f"batch.{SHARD}.{VENUE}")
        self.sent = (batch[-1].trade_id, batch[-1].event_us)

    def _ingestor_restarts(self) -> None:
        """Everything in its memory is gone; what it had published last is known."""
        self.deaths += 1
        self.outbox = []
        self.guard = TradeGuard(hold_us=HOLD_US)
        if self.sent is None:
            self.guard.seed(SYMBOL, self.book[0].trade_id - 1, START_US)
        else:
            self.guard.seed(SYMBOL, *self.sent)

    # --- the shard's worker ------------------------------------------------------------------------------------

    async def _worker_starts(self) -> None:
        self.epoch += 1
        self.worker = ShardWorker(
            SHARD,
            self.epoch,
            rate=lambda asset, now_us: None,
            store=self.tables,
            latest=self.tables,
            publisher=self.tables,
            requests=self.tables,
            clock=self.clock,
            live_sources=frozenset(),
        )
        await self.worker.open()
        ticks = Queue("indicators", TICKS, (f"batch.{SHARD}.#",), shard=SHARD)
        history = Queue("indicators", HISTORY, (f"backfill.{SHARD}.#",), shard=SHARD)
        self.worker.ticks = await self.bus.subscribe(
            ticks, self.worker.on_ticks, manual_ack=not self.ack_before_work
        )
        self.worker.history = await self.bus.subscribe(history, self.worker.on_history)

    async def _worker_step(self) -> None:
        await asyncio.sleep(0)
        dice = self.random.random()
        if dice < self.chances.worker_dies:
            await self._worker_dies()
        elif dice < 0.10:
            await self.worker.snapshot()
        elif dice < 0.20:
            await self.worker.store_closed()
        elif dice < 0.25:
            self.worker.tick_clock()

    async def _worker_dies(self) -> None:
        """SIGKILL: nothing is stored or acked; another owner takes over from the last snapshot."""
        self.deaths += 1
        for subscription in (self.worker.history, self.worker.ticks):
            assert subscription is not None
            await subscription.close()
        await self._worker_starts()

    async def _finish(self) -> None:
        """The venue's last word repairs the tail; the clock closes the last minute."""
        while self.guard.held:
            self.clock.advance(HOLD_US / 1e6 + 0.1)
            self._repair_due()
        tail = self.guard.expect(SYMBOL, self.book[-1].trade_id, self.clock.now_us())
        if tail is not None:
            self._repair(tail)
        await self._publish()
        await self._quiet()
        for _ in range(3):
            self.clock.advance(MINUTE_US / 1e6)
            self.worker.tick_clock()
            await self.worker.store_closed()
        await self.worker.snapshot()

    async def _quiet(self) -> None:
        """Until the queue is empty and its last message handled."""
        queue = self.broker.queues[Queue("indicators", TICKS, (), shard=SHARD).name]
        async with asyncio.timeout(5):
            while queue.ready or self.worker.market.state is None:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)

    def stored(self) -> dict[int, tuple[Any, ...]]:
        """The venue's minutes as they are stored."""
        return {
            at: (c.open, c.high, c.low, c.close, c.volume, c.trades, c.first_id, c.last_id)
            for (symbol, source, interval, at), (c, _) in self.tables.rows.items()
            if (symbol, source, interval) == (SYMBOL, VENUE, "1m") and c.trades
        }
