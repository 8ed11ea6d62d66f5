"""Supervised loops: each beats while it lives, is started again with growing pauses when it fails, and stops at drain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge

Beat = Callable[[], None]
LoopFn = Callable[[Beat], Awaitable[None]]

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 15.0
LAG_PERIOD_SECONDS: Final = 0.5

_RESTARTS: Final = counter(
    "cryptopulse_loop_restarts_total", "Worker loops started again after an error.", ("service", "loop")
)
_BEAT_AGE: Final = gauge(
    "cryptopulse_loop_heartbeat_age_seconds", "Seconds since a worker loop last beat.", ("service", "loop")
)
_LAG: Final = gauge(
    "cryptopulse_event_loop_lag_seconds",
    "How much later than asked the event loop woke us, worst of the last 10 s.",
    ("service",),
)
_TASKS: Final = gauge(
    "cryptopulse_event_loop_tasks", "Tasks of the event loop that have not ended.", ("service",)
)
log = get_logger(__name__)


@dataclass(slots=True)
class LoopState:
    """One loop as `/livez` shows it. `finished` is a loop that returned by itself: it need not beat any more."""

    name: str
    stall_seconds: float
    beat_at: float
    restarts: int = 0
    finished: bool = False
    last_error: str = ""

    def age(self, now: float) -> float:
        """Seconds since the last beat."""
        return max(0.0, now - self.beat_at)

    def stalled(self, now: float) -> bool:
        """True when a running loop has not beaten for longer than it promised."""
        return not self.finished and self.age(now) > self.stall_seconds


class Loops:
    """All worker loops of a process."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._registered: list[tuple[LoopState, LoopFn]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started = False

    def add(self, name: str, run: LoopFn, *, stall_seconds: float = 30.0) -> None:
        """Register a loop; it starts with the others, or at once when they run already. Names are unique."""
        if any(state.name == name for state, _ in self._registered):
            raise ValueError(f"a loop named {name} exists already")
        state = LoopState(name=name, stall_seconds=stall_seconds, beat_at=self._clock.monotonic())
        self._registered.append((state, run))
        _RESTARTS.labels(self._service, name).inc(0)
        if self._started:
            self._start(state, run)

    def start(self) -> None:
        """Start every registered loop."""
        self._started = True
        for state, run in self._registered:
            self._start(state, run)

    def states(self) -> list[LoopState]:
        """The loops, in the order of registration."""
        return [state for state, _ in self._registered]

    def publish_ages(self) -> None:
        """Show the ages of the heartbeats as metrics."""
        now = self._clock.monotonic()
        for state in self.states():
            _BEAT_AGE.labels(self._service, state.name).set(0.0 if state.finished else state.age(now))

    async def cancel(self, timeout_seconds: float) -> list[str]:
        """Cancel all loops and wait, bounded; returns the names of those that would not end."""
        running = {name: task for name, task in self._tasks.items() if not task.done()}
        for task in running.values():
            task.cancel()
        if running:
            await asyncio.wait(running.values(), timeout=timeout_seconds)
        return [name for name, task in running.items() if not task.done()]

    def _start(self, state: LoopState, run: LoopFn) -> None:
        self._tasks[state.name] = asyncio.create_task(self._supervise(state, run), name=f"loop:{state.name}")

    async def _supervise(self, state: LoopState, run: LoopFn) -> None:
        def beat() -> None:
            state.beat_at = self._clock.monotonic()

        pause = FIRST_PAUSE_SECONDS
        while True:
            beat()
            started = self._clock.monotonic()
            try:
                await run(beat)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Someone else's cancellation leaked out of the loop's own work: that is a failure, not our stop.
                self._failed(state, "cancelled from inside")
            except Exception as error:
                self._failed(state, f"{type(error).__name__}: {error}")
                log.exception("loop failed", loop=state.name, restarts=state.restarts)
            else:
                state.finished = True
                return
            if self._clock.monotonic() - started > LONGEST_PAUSE_SECONDS * 2:
                pause = FIRST_PAUSE_SECONDS
            beat()
            await asyncio.sleep(min(pause, state.stall_seconds / 2) * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _failed(self, state: LoopState, reason: str) -> None:
        state.restarts += 1
        state.last_error = reason
        _RESTARTS.labels(self._service, state.name).inc()


class LagMeter:
    """Measures how late the event loop wakes a sleeper, the sign of blocking work, and counts its tasks."""

    def __init__(self, service: str) -> None:
        self._gauge = _LAG.labels(service)
        self._tasks = _TASKS.labels(service)
        self._recent: list[float] = []

    @property
    def worst_seconds(self) -> float:
        """The worst lag of the last ten seconds."""
        return max(self._recent, default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        keep = round(10 / LAG_PERIOD_SECONDS)
        while True:
            asked = loop.time() + LAG_PERIOD_SECONDS
            await asyncio.sleep(LAG_PERIOD_SECONDS)
            self._recent = [*self._recent[-keep:], max(0.0, loop.time() - asked)]
            self._gauge.set(self.worst_seconds)
            self._tasks.set(len(asyncio.all_tasks(loop)))
