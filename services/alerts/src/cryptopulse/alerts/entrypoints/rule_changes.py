"""Changes of rules, applied to the evaluations within a second: at each NOTIFY, and by a look at what changed now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from cryptopulse.alerts.application.evaluate import AbandonedError, ShardEvaluation
from cryptopulse.alerts.application.ports import ShardStore
from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
RESYNC_SECONDS: Final = 30.0
OVERLAP: Final = timedelta(seconds=30)
MAX_WAITING: Final = 100_000
BATCH: Final = 200


class RuleChanges:
    """A bounded set of rule ids that changed; `run` applies them."""

    def __init__(
        self, store: ShardStore, evaluations: Callable[[], list[ShardEvaluation]], clock: Clock
    ) -> None:
        self._store = store
        self._evaluations = evaluations
        self._clock = clock
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._resync = True
        self._seen_until = self._now()

    def note(self, rule_id: str) -> None:
        """A rule was made, changed, or deleted."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting[rule_id] = None
        else:
            self._resync = True
        self._wake.set()

    def missed(self) -> None:
        """Notifications may have been lost: look at what changed."""
        self._resync = True
        self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever; never ends because the store is away."""
        last = self._clock.monotonic()
        while True:
            beat()
            self._wake.clear()
            try:
                if self._resync or self._clock.monotonic() - last > RESYNC_SECONDS:
                    await self._look()
                    last = self._clock.monotonic()
                await self._apply()
            except Retryable as error:
                log.warning("rule changes wait for the store", error=str(error))
                await asyncio.sleep(0.5)
            if not self._waiting:
                try:
                    await asyncio.wait_for(self._wake.wait(), 1.0)
                except TimeoutError:
                    continue

    async def _look(self) -> None:
        until = self._now()
        for rule_id in await self._store.changed_since(self._seen_until - OVERLAP):
            self._waiting[rule_id] = None
        self._seen_until = until
        self._resync = False

    async def _apply(self) -> None:
        while self._waiting:
            rule_ids = list(islice(self._waiting, BATCH))
            for rule_id in rule_ids:
                # Taken out first: a change that comes while this one is read is looked at again.
                del self._waiting[rule_id]
            try:
                found = await self._store.rules_by_id(rule_ids)
            except Retryable:
                self._waiting.update(dict.fromkeys(rule_ids))
                raise
            for evaluation in self._evaluations():
                with contextlib.suppress(AbandonedError):
                    await evaluation.apply(rule_ids, found)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
