"""Reference prices and coins: one batched call for everyone, as often as the budget lets, stale rather than wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.catalogue import CoinList
from cryptopulse.common.contracts.feeds import ConnectionState, ConnectionStatus, FeedStatus
from cryptopulse.common.contracts.topics import COINS, FEEDS, shard_of
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.errors import BusUnavailable, CryptoPulseError, StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.ingestor.application.ports import Lease, Page, Quota, ReferenceSource, Wanted
from cryptopulse.ingestor.application.publish import ShardPublisher
from cryptopulse.ingestor.application.reference_history import ReferenceHistory
from cryptopulse.ingestor.application.unheard import Unheard
from cryptopulse.ingestor.domain.backoff import Backoff

IDS_PER_CALL: Final = 250
STATUS_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 1.0
PART: Final = "1/1"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PollPlan:
    """How often: prices of the first page and of the wanted every `price_seconds`, further pages hourly.

    Each poll brings one piece of history more while any is due. A poll of n calls is followed by at least n times `call_seconds`: so the month's budget lasts.
    """

    price_seconds: float
    pages: int
    call_seconds: float = 0.0
    page_seconds: float = 3_600.0


class ReferencePoller:
    """Polls one reference source and publishes coins and prices."""

    def __init__(
        self,
        source: ReferenceSource,
        *,
        bus: Publisher,
        clock: Clock,
        quota: Quota,
        wanted: Wanted,
        lease: Lease,
        plan: PollPlan,
        publishers: Sequence[ShardPublisher],
        history: ReferenceHistory,
        shards: int,
        simulated: bool,
    ) -> None:
        self._source = source
        self._bus = bus
        self._clock = clock
        self._quota = quota
        self._wanted = wanted
        self._lease = lease
        self._plan = plan
        self._publishers = publishers
        self._history = history
        self._shards = shards
        self._simulated = simulated
        self._backoff = Backoff(base_seconds=5.0, cap_seconds=600.0)
        self._asked = asyncio.Event()
        self._unheard = Unheard(clock)
        self._fresh: set[str] = set()
        self._covered: set[str] = set()
        self._next_page, self._pages_at = 2, 0.0
        self._first_page: frozenset[str] = frozenset()
        self._last_us: int | None = None
        self._state: ConnectionState = "connecting"
        self._reason = "first poll"
        self._since_us = clock.now_us()
        self._failures = 0
        self.paused = False
        self.active = False
        self.epoch = 0

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    async def want(self, coin_ids: Sequence[str], ttl_seconds: int) -> None:
        """Keep these coins priced for so long; new ones are fetched with the next call allowed."""
        await self._wanted.add(coin_ids, self._clock.now_ms() + ttl_seconds * 1_000)
        fresh = set(coin_ids) - self._covered - self._fresh
        if fresh:
            self._fresh |= fresh
            self._asked.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Poll for ever; a failure lengthens the pause, and what was known stays with its age."""
        next_at = 0.0
        while True:
            beat()
            await self._keep_lease()
            if self._asked.is_set() and self._failures == 0 and self.active and not self.paused and next_at:
                next_at += await self._guarded(self._poll_fresh)
            self._asked.clear()
            if self.active and not self.paused and self._clock.monotonic() >= next_at:
                next_at = await self._guarded(self._poll) + self._clock.monotonic()
            try:
                async with asyncio.timeout(LEASE_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def pause(self) -> None:
        """Call no more until resumed."""
        self.paused = True

    async def resume(self) -> None:
        """Call again."""
        self.paused = False

    async def _keep_lease(self) -> None:
        try:
            epoch = await self._lease.take(self._source.name, PART)
        except StoreUnavailable:
            epoch = self.epoch or self._clock.now_ms()
        self.active = epoch is not None
        if epoch is not None and epoch != self.epoch:
            self.epoch = epoch
            for publisher in self._publishers:
                publisher.epoch = epoch

    async def _guarded(self, poll: Callable[[], Awaitable[float]]) -> float:
        """Poll now; seconds by which the next one is put off."""
        try:
            pause = await poll()
        except CryptoPulseError as error:
            self._failures += 1
            pause = max(self._backoff.next_seconds(), getattr(error, "retry_after_seconds", None) or 0.0)
            self._enter("backoff", str(error))
            level = self._unheard.level(error) if isinstance(error, BusUnavailable) else logging.WARNING
            if level is not None:
                log.log(level, "reference prices not refreshed", error=str(error), pause=round(pause, 1))
            return pause
        self._backoff.reset()
        self._failures = 0
        self._enter("live", "")
        return pause

    async def publish_status(self, beat: Callable[[], None]) -> None:
        """Tell the state every few seconds."""
        while True:
            beat()
            try:
                await self._bus.publish(FEEDS, self.status(), key=key_of(FEEDS, venue=self._source.name))
            except BusUnavailable as error:
                log.debug("status not sent", error=str(error))
            await asyncio.sleep(STATUS_SECONDS)

    def status(self) -> FeedStatus:
        """State, budget and age of the source."""
        connection = ConnectionStatus(
            connection=f"{self._source.name}-poll",
            state="stopped" if self.paused else self._state,
            reason=self._reason,
            since_us=self._since_us,
            symbols=len(self._covered),
            last_data_us=self._last_us,
        )
        return FeedStatus(
            venue=self._source.name,
            at_us=self._clock.now_us(),
            part=PART,
            epoch=self.epoch,
            active=self.active,
            state=connection.state,
            connections=[connection],
            budgets=self._quota.status(self._source.name),
            history=self._history.progress,
            last_tick_us=self._last_us,
            paused=self.paused,
            simulated=self._simulated,
        )

    async def _poll_fresh(self) -> float:
        """Coins that nobody had asked for before: one call for all of them."""
        fresh = sorted(self._fresh)[:IDS_PER_CALL]
        self._fresh.difference_update(fresh)
        if fresh:
            await self._take(await self._source.coins(fresh))
        return self._plan.call_seconds if fresh else 0.0

    async def _poll(self) -> float:
        first = await self._source.top(1)
        self._first_page = frozenset(coin.id for coin in first.coins)
        await self._take(first)
        calls = 1
        every = await self._ids_wanted()
        wanted = [coin for coin in every if coin not in self._first_page]
        for at in range(0, len(wanted), IDS_PER_CALL):
            await self._take(await self._source.coins(wanted[at : at + IDS_PER_CALL]))
            calls += 1
        self._fresh.clear()
        now = self._clock.monotonic()
        if self._plan.pages > 1 and now >= self._pages_at:
            await self._take(await self._source.top(self._next_page))
            calls += 1
            self._next_page += 1
            if self._next_page > self._plan.pages:
                self._next_page, self._pages_at = 2, now + self._plan.page_seconds
        calls += await self._history.fetch_next(every)
        return max(self._plan.price_seconds, calls * self._plan.call_seconds)

    async def _ids_wanted(self) -> list[str]:
        try:
            stored = await self._wanted.current(self._clock.now_ms())
        except StoreUnavailable:
            stored = []
        return list(dict.fromkeys([*self._fresh, *stored]))

    async def _take(self, page: Page) -> None:
        self._last_us = self._clock.now_us()
        self._covered.update(coin.id for coin in page.coins)
        self._history.note(page)
        for price in page.prices:
            self._publishers[shard_of(base_of(price.symbol), self._shards)].add_reference(price)
        if page.coins:
            message = CoinList(at_us=self._last_us, coins=page.coins, simulated=self._simulated)
            await self._bus.publish(COINS, message, key=key_of(COINS, id=page.coins[0].id))

    def _enter(self, state: ConnectionState, reason: str) -> None:
        if (state, reason) != (self._state, self._reason):
            self._state, self._reason, self._since_us = state, reason, self._clock.now_us()
