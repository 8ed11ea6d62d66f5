"""Two hundred forced moves of a shard under load: no trade is lost or doubled, and no indicator value differs.

The truth is one uninterrupted fold over the candles as they ended up. Moves are handed over in order, killed, or zombies:
owners that go on working, and store, while a newer one has the shard.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.topics import HISTORY, TICKS, Queue
from cryptopulse.indicators.application.shard import ShardWorker
from cryptopulse.indicators.application.update_indicators import point_of, scale_of
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.registry import live_studies


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "shard_move_simulation", Path(__file__).with_name("simulation.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


simulation: Any = _load()
SYMBOL, VENUE, SHARD = simulation.SYMBOL, simulation.VENUE, simulation.SHARD
MOVES, SEEDS = 200, 6
BEFORE = 120
Place = tuple[str, str, str, int]


def history() -> list[Candle]:
    """Two hours of stored minutes before the first trade."""
    dice, price, found = random.Random(3), Decimal(67000), []
    start = simulation.START_US // 1000 - BEFORE * 60_000
    for index in range(BEFORE):
        close = price + Decimal(dice.randint(-400, 400)) / 10
        high, low, volume = max(price, close) + 1, min(price, close) - 1, Decimal(dice.randint(1, 999)) / 100
        found.append(
            Candle(
                SYMBOL, VENUE, "1m", start + index * 60_000, price, high, low, close, volume, volume * close, 5,
                volume / 2, complete=True,
            )
        )  # fmt: skip
        price = close
    return found


class Tables(simulation.Tables):  # type: ignore[misc]  # loaded by path
    """The stores, counting refusals, and a consumer that remembers the final values of the newest epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        self.told: dict[Place, IndicatorUpdate] = {}
        self.by: dict[Place, int] = {}
        self.conflicts = 0

    async def save_snapshot(self, shard: int, epoch: int, state: bytes) -> bool:
        saved: bool = await super().save_snapshot(shard, epoch, state)
        self.refused += not saved
        return saved

    async def closed_values(self, shard: int, epoch: int, updates: Sequence[IndicatorUpdate]) -> None:
        for update in updates:
            place = (update.symbol, update.source, update.interval, update.open_time)
            known, by = self.told.get(place), self.by.get(place, 0)
            if known is not None and (by, known.revision) == (epoch, update.revision):
                self.conflicts += known.values != update.values
            if epoch >= by:
                self.told[place], self.by[place] = update, epoch


class World(simulation.World):  # type: ignore[misc]  # loaded by path
    """The simulation with live indicators, and moves of the shard in three ways."""

    def __init__(self, seed: int, chances: Any, *, move: float = 0.15, forgets: bool = False) -> None:
        super().__init__(seed, chances)
        self.tables = Tables()
        self.move = move
        self.forgets = forgets
        self.moves = {"handed over": 0, "killed": 0, "zombie": 0}
        self.zombies: list[ShardWorker] = []
        self.corrected = 0

    async def run(self) -> None:
        await self.tables.upsert(history(), origin=1, epoch=0)
        await super().run()
        await self._settle()

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
            live_sources=frozenset({VENUE}),
        )
        if self.forgets:
            self.tables.series.clear()
            self.tables.snapshot = None
        await self.worker.open()
        await self._listen(self.worker)

    async def _listen(self, worker: ShardWorker) -> None:
        ticks = Queue("indicators", TICKS, (f"batch.{SHARD}.#",), shard=SHARD)
        past = Queue("indicators", HISTORY, (f"backfill.{SHARD}.#",), shard=SHARD)

        async def fold(delivery: Delivery) -> None:
            await worker.on_ticks(delivery)

        worker.ticks = await self.bus.subscribe(ticks, fold, manual_ack=True)
        worker.history = await self.bus.subscribe(past, worker.on_history)

    async def _worker_step(self) -> None:
        await super()._worker_step()
        dice = self.random.random()
        if dice < self.move:
            await self._moves(self.random.choice(tuple(self.moves)))
        elif dice < self.move + 0.25:
            await self.worker.warm()
        elif dice < self.move + 0.27:
            await self._correct()
        for zombie in self.zombies:
            if self.random.random() < 0.3:
                await zombie.store_closed()
                await zombie.snapshot()
        if self.zombies and self.random.random() < 0.2:
            gone = self.zombies.pop(0)
            await gone.close(lost=True)

    async def _moves(self, how: str) -> None:
        self.moves[how] += 1
        old = self.worker
        if how == "handed over":
            await old.close(lost=False)
        elif how == "killed":
            for subscription in (old.history, old.ticks):
                assert subscription is not None
                await subscription.close()
        else:
            for subscription in (old.history, old.ticks):
                assert subscription is not None
                await subscription.close()
            self.zombies.append(old)
        await self._worker_starts()

    async def _correct(self) -> None:
        """The venue's own candle says something else about an older minute."""
        index = self.random.randrange(BEFORE)
        at = simulation.START_US // 1000 - (BEFORE - index) * 60_000
        known = self.tables.rows[SYMBOL, VENUE, "1m", at][0]
        fixed = msgspec.structs.replace(known, high=known.high + 3, volume=known.volume + 1)
        self.corrected += 1
        batch = HistoryBatch(
            venue=VENUE, symbol=SYMBOL, interval="1m", candles=[fixed], from_ms=at, to_ms=at + 60_000
        )
        await self.bus.publish(HISTORY, batch, key=f"backfill.{SHARD}.{VENUE}.{SYMBOL}")

    async def _settle(self) -> None:
        """Until nothing waits to be built or told."""
        for _ in range(4):
            self.clock.advance(3)
            await self.worker.warm()
            await self.worker.store_closed()
        await self.worker.snapshot()
        assert not self.worker.book.dirty

    def wrong_values(self) -> list[Place]:
        """Places whose told values are not those of one uninterrupted fold over the stored bars."""
        wrong = []
        intervals = {key[2] for key in self.tables.rows if key[:2] == (SYMBOL, VENUE)}
        for interval in intervals:
            bars = sorted(
                (candle for (s, v, i, _), (candle, _) in self.tables.rows.items() if (s, v, i) == (SYMBOL, VENUE, interval)),
                key=lambda candle: candle.open_time,
            )  # fmt: skip
            core = IndicatorSeries(live_studies(interval), scale_of(bars))
            for bar in bars:
                values = dict(zip(core.names, core.commit(point_of(bar, interval, core.scale)), strict=True))
                told = self.tables.told.get((SYMBOL, VENUE, interval, bar.open_time))
                if told is not None and told.values != values:
                    wrong.append((SYMBOL, VENUE, interval, bar.open_time))
        return wrong

    def stored(self) -> dict[int, tuple[Any, ...]]:
        """The venue's minutes since the ledger begins."""
        found: dict[int, tuple[Any, ...]] = super().stored()
        return {at: row for at, row in found.items() if at * 1000 >= simulation.START_US}

    def untold(self) -> list[int]:
        """Minutes that the ledger has and no final values were told of."""
        return [
            at for at in simulation.minutes_of(self.book) if (SYMBOL, VENUE, "1m", at) not in self.tables.told
        ]


async def test_two_hundred_forced_moves_lose_and_double_nothing_and_change_no_value() -> None:
    moves = {"handed over": 0, "killed": 0, "zombie": 0}
    refused = corrected = seed = 0
    while sum(moves.values()) < MOVES or seed < SEEDS:
        world = World(seed, simulation.Chances(worker_dies=0.0))
        await world.run()
        await world.bus.close()
        assert world.stored() == simulation.minutes_of(world.book), f"seed {seed}: lost or doubled"
        assert world.untold() == [], f"seed {seed}"
        assert world.tables.contradictions() == [], f"seed {seed}"
        assert world.wrong_values() == [], f"seed {seed}"
        assert world.tables.conflicts == 0, f"seed {seed}"
        for how, count in world.moves.items():
            moves[how] += count
        refused += world.tables.refused
        corrected += world.corrected
        seed += 1
    print(f"{moves}, {refused} refused, {corrected} corrected, {seed} seeds")
    assert min(moves.values()) > 20
    assert refused > 20
    assert corrected > 10


@pytest.mark.parametrize("seed", range(2))
async def test_an_owner_that_forgets_is_found(seed: int) -> None:
    world = World(seed, simulation.Chances(worker_dies=0.0), forgets=True)
    await world.run()
    await world.bus.close()
    assert world.stored() != simulation.minutes_of(world.book)
