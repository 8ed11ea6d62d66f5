"""One shard being evaluated: inputs in turn, firings stored before the next input, memory saved before anything is acked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from cryptopulse.alerts.application.ports import CandleReader, FiringStore, PreparedEvent, ShardStore
from cryptopulse.alerts.application.prepare import prepare
from cryptopulse.alerts.domain.definition import home_shard
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.market import Hole
from cryptopulse.alerts.domain.replay import MAX_REPLAY_MINUTES, minutes_of
from cryptopulse.alerts.domain.rules import Firing, Rule
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.intervals import MINUTE_MS, length_ms
from cryptopulse.common.contracts.topics import shard_of
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, histogram

log = get_logger(__name__)

EVENTS: Final = counter("cryptopulse_alert_events_total", "Alert events stored, by type.", ("kind",))
LATENCY: Final = histogram(
    "cryptopulse_alert_latency_seconds", "From the handling of an input to the stored event.", ()
)
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
HOLE_PATIENCE_SECONDS: Final = 5.0
"""How long after a minute's end its candle is expected at the latest."""
HOLE_TRIES: Final = 20
LOAD_SLICE: Final = 500
SEED_AGAIN_SECONDS: Final = 60.0

ResultT = TypeVar("ResultT")
Step = Callable[[ShardEngine, int], list[Firing]]


class AbandonedError(Exception):
    """The shard is given up; what is in hand goes unacked to the next owner."""


class ShardEvaluation:
    """A shard that this replica owns, under one epoch. All methods may be called from many tasks; steps take turns."""

    def __init__(
        self,
        shard: int,
        epoch: int,
        *,
        shards: int,
        store: ShardStore,
        firings: FiringStore,
        candles: CandleReader,
        clock: Clock,
    ) -> None:
        self.shard = shard
        self.epoch = epoch
        self._shards = shards
        self._store = store
        self._firings = firings
        self._candles = candles
        self._clock = clock
        self.engine = ShardEngine(owns=lambda symbol: shard_of(base_of(symbol), shards) == shard)
        self._turn = asyncio.Lock()
        self._closing = False
        self._save_all = False
        self._holes: asyncio.Queue[Hole] = asyncio.Queue()
        self._seed_after: dict[tuple[str, str, str], float] = {}

    def is_home(self, home: str) -> bool:
        """Whether rules of this home are evaluated here."""
        return home_shard(home, self._shards) == self.shard

    async def load(self) -> None:
        """Stand where the predecessor stood, with its rules. Raises `StoreUnavailable`."""
        homes = [home for home in await self._store.homes() if self.is_home(home)]
        self.engine.restore(await self._store.positions(homes))
        rules = await self._store.rules(homes)
        for start in range(0, len(rules), LOAD_SLICE):
            await self._load_part(rules[start : start + LOAD_SLICE])
            await asyncio.sleep(0)
        self.engine.prune()
        self._note_holes()
        log.info("shard loaded", shard=self.shard, epoch=self.epoch, rules=len(rules))

    async def _load_part(self, rules: Sequence[Rule]) -> None:
        await self.step(lambda engine, now: engine.load(rules, now))

    async def step(self, work: Step) -> None:
        """One input: evaluated and stored before the next one is looked at. Raises `AbandonedError` while closing."""
        async with self._turn:
            if self._closing:
                raise AbandonedError
            fired = work(self.engine, self._clock.now_us())
            self._note_holes()
            if fired:
                await self._store_until_done(fired)

    async def apply(self, rule_ids: Sequence[str], found: Mapping[str, tuple[str, Rule]]) -> None:
        """Rules were made, changed, or deleted: `found` are those of them that are active, with their homes.

        Raises `AbandonedError` while closing.
        """
        mine = [(rule_id, found.get(rule_id)) for rule_id in rule_ids]
        await self.step(
            lambda engine, now: [
                firing for rule_id, entry in mine for firing in self._apply_one(engine, rule_id, entry, now)
            ]
        )

    def _apply_one(
        self, engine: ShardEngine, rule_id: str, entry: tuple[str, Rule] | None, now_us: int
    ) -> list[Firing]:
        if entry is None or not self.is_home(entry[0]):
            engine.remove(rule_id)
            return []
        known = engine.rule(rule_id)
        if known is not None and known.version >= entry[1].version:
            return []
        return engine.add(entry[1], now_us)

    async def save(self, taken: Callable[[], None] = lambda: None) -> None:
        """Store positions and memories. `taken` is called at the moment that they describe: what was handled before it may be acked.

        Raises `StoreUnavailable`; then nothing is lost, the next call stores more.
        """
        async with self._turn:
            positions = self.engine.positions(only_changed=not self._save_all)
            rules = self.engine.dirty()
            for rule in rules:
                rule.dirty = False
            taken()
        try:
            await self._store.save(positions, rules, epoch=self.epoch)
            self._save_all = False
        except Retryable:
            self._save_all = True
            for rule in rules:
                rule.dirty = True
            raise

    async def repair(self, beat: Callable[[], None]) -> None:
        """For ever: explain holes by candles, and fill volume windows from history."""
        while True:
            beat()
            await self._seed_volumes()
            try:
                hole = await asyncio.wait_for(self._holes.get(), 2.0)
            except TimeoutError:
                continue
            await self._explain(hole, beat)

    def close(self) -> None:
        """Take no further step; a step that waits for the store gives up."""
        self._closing = True

    def _note_holes(self) -> None:
        for hole in self.engine.take_holes():
            self._holes.put_nowait(hole)

    async def _explain(self, hole: Hole, beat: Callable[[], None]) -> None:
        minutes = minutes_of(hole)
        end_ms = minutes[-1] + MINUTE_MS if len(minutes) else hole.to_us // 1000
        if hole.to_us - hole.from_us <= MINUTE_MS * 1000:
            # A short hole: its ends were evaluated already; the excursion inside is known when its minute has closed.
            while self._clock.now_ms() < end_ms + HOLE_PATIENCE_SECONDS * 1000 and not self._closing:
                beat()
                await asyncio.sleep(1.0)
        candles = None
        for attempt in range(HOLE_TRIES):
            beat()
            if len(minutes) > MAX_REPLAY_MINUTES or self._closing:
                candles = []
                break
            try:
                candles = await self._candles.candles(hole.symbol, hole.source, "1m", minutes[0], end_ms)
                break
            except Retryable as error:
                log.warning(
                    "hole waits for candles", symbol=hole.symbol, source=hole.source, error=str(error)
                )
                await asyncio.sleep(min(30.0, 0.5 * 2**attempt) * random.uniform(0.7, 1.0))
        if self._closing:
            return
        found = candles or []
        log.info(
            "hole replayed", symbol=hole.symbol, source=hole.source, minutes=len(minutes), candles=len(found)
        )
        await self.step(lambda engine, now: engine.replay(hole, found, now))

    async def _seed_volumes(self) -> None:
        for series in self.engine.empty_volumes():
            symbol, source, interval = series
            now = self._clock.now_ms()
            if self._clock.monotonic() < self._seed_after.get(series, 0.0):
                continue
            self._seed_after[series] = self._clock.monotonic() + SEED_AGAIN_SECONDS
            try:
                found = await self._candles.candles(
                    symbol, source, interval, now - 220 * length_ms(interval), now + 1, newest=220
                )
            except Retryable:
                return
            self.engine.seed_volumes(found)

    async def _store_until_done(self, fired: Sequence[Firing]) -> None:
        """Keep trying while the store is away: the input waits in hand, unacked, and so do all behind it."""
        events = [prepare(firing, self._clock.now_us()) for firing in fired]
        result = await self._patiently(lambda: self._firings.commit(events))
        self._count(events, result.rejected)
        for rule_id in result.rejected:
            await self._refresh(rule_id)

    async def _patiently(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Call until the store answers, or the shard is given up."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except Retryable as error:
                if self._closing:
                    raise AbandonedError from error
                log.warning("firings wait for the store", shard=self.shard, error=str(error))
                await asyncio.sleep(pause * random.uniform(0.7, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _count(self, events: Sequence[PreparedEvent], rejected: frozenset[str]) -> None:
        now = self._clock.now_us()
        for event in events:
            if event.firing.rule_id not in rejected:
                EVENTS.labels(event.firing.type).inc()
                LATENCY.observe(max(0, now - event.firing.cause.now_us) / 1_000_000)

    async def _refresh(self, rule_id: str) -> None:
        """A firing was refused: the rule was changed, deleted, or had fired for this before. Take it as it is stored."""
        found = await self._patiently(lambda: self._store.rule(rule_id))
        self.engine.remove(rule_id)
        if found is not None and self.is_home(found[0]):
            self._take_back(found[1])

    def _take_back(self, rule: Rule) -> None:
        rule.runtime.evaluated = True
        self.engine.add(rule, self._clock.now_us())
