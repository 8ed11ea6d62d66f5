"""The delivery worker: claims what is due, signs, posts, and writes down what follows."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from cryptopulse.alerts.application.ports import Answer, Due, WebhookSender
from cryptopulse.alerts.domain import signature
from cryptopulse.alerts.domain.schedule import Outcome, judge
from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter

log = get_logger(__name__)
ATTEMPTS: Final = counter(
    "cryptopulse_webhook_attempts_total", "Attempts to deliver, by outcome.", ("outcome",)
)

POLL_SECONDS: Final = 1.0
KEEP_DAYS: Final = 30
CLEAN_SECONDS: Final = 600.0


class DeliveryStore(Protocol):
    """The queue of deliveries."""

    async def claim(self, limit: int) -> list[Due]:
        """Deliveries that are due, ours until their lease ends. Raises `StoreUnavailable`."""
        ...

    async def finish(self, due: Due, answer: Answer, outcome: Outcome) -> str | None:
        """Write the attempt down; -> why the endpoint was disabled by it, if it was."""
        ...

    async def next_due_seconds(self) -> float | None:
        """Seconds until the next is due; None when none waits."""
        ...

    async def clean(self, *, keep_days: int) -> None:
        """Forget old ones."""
        ...


Disabled = Callable[[Due, str], Awaitable[None]]
"""Called when an endpoint was disabled by its failures: its owner is told."""


class DeliveryWorker:
    """Runs up to `concurrency` attempts at a time; a crash in between costs a lease, never a delivery."""

    def __init__(
        self,
        store: DeliveryStore,
        sender: WebhookSender,
        clock: Clock,
        *,
        concurrency: int,
        disabled: Disabled,
    ) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock
        self._concurrency = concurrency
        self._disabled = disabled
        self._wake = asyncio.Event()
        self._in_hand: set[asyncio.Task[None]] = set()
        self._draining = False

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever, until drained; never ends because the store is away."""
        clean_at = self._clock.monotonic()
        while not self._draining:
            beat()
            self._wake.clear()
            try:
                claimed = await self._claim()
                if self._clock.monotonic() >= clean_at:
                    await self._store.clean(keep_days=KEEP_DAYS)
                    clean_at = self._clock.monotonic() + CLEAN_SECONDS
                wait = 0.0 if claimed else await self._pause()
            except Retryable as error:
                log.warning("deliveries wait for the store", error=str(error))
                wait = POLL_SECONDS * random.uniform(0.7, 1.3)
            if wait:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in hand; the caller bounds the time, leases cover the rest."""
        self._draining = True
        self.wake()
        if self._in_hand:
            await asyncio.wait(self._in_hand)

    async def attempt(self, due: Due) -> None:
        """One attempt of one delivery, with everything that follows from it."""
        now_ms = self._clock.now_ms()
        headers = signature.headers(due.message_id, now_ms // 1000, due.body, due.secrets)
        cause = tracing.extract({tracing.TRACEPARENT: due.traceparent})
        with tracing.span("webhook deliver", kind="client", parent=cause, always=True):
            answer = await self._sender.post(due.url, due.body, headers)
        outcome = judge(
            status=answer.status,
            attempts=due.round_attempts,
            age_seconds=due.age_seconds,
            retry_after=answer.retry_after,
            jitter=random.uniform(-1, 1),
            now_ms=self._clock.now_ms(),
        )
        if answer.abort and outcome.verdict == "retry":
            outcome = Outcome("exhausted")
        ATTEMPTS.labels(outcome.verdict).inc()
        reason = await self._patiently(due, answer, outcome)
        if reason is not None:
            log.warning("webhook disabled", webhook=due.webhook_id, reason=reason)
            await self._disabled(due, reason)

    async def _claim(self) -> int:
        room = self._concurrency - len(self._in_hand)
        if room <= 0:
            await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED, timeout=POLL_SECONDS)
            return 1
        claimed = await self._store.claim(room)
        for due in claimed:
            task = asyncio.create_task(self._guarded(due), name=f"deliver:{due.id}")
            self._in_hand.add(task)
            task.add_done_callback(self._done)
        return len(claimed)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self._wake.set()

    async def _guarded(self, due: Due) -> None:
        try:
            await self.attempt(due)
        except Retryable as error:
            log.warning("attempt was not written down", delivery=due.id, error=str(error))
        except Exception:
            log.exception("attempt failed", delivery=due.id)

    async def _patiently(self, due: Due, answer: Answer, outcome: Outcome) -> str | None:
        """Write an attempt down; after some tries the lease decides, and the delivery is made again."""
        for pause in (0.1, 0.5, 2.0):
            try:
                return await self._store.finish(due, answer, outcome)
            except Retryable:
                await asyncio.sleep(pause)
        return await self._store.finish(due, answer, outcome)

    async def _pause(self) -> float:
        due_in = await self._store.next_due_seconds()
        return POLL_SECONDS if due_in is None else min(POLL_SECONDS, max(0.02, due_in))
