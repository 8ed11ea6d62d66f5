"""What the simulator achieved: rates and CPU, printed every few seconds and served by the control API."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.venue_sim.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at a moment."""

    at: float
    cpu_seconds: float
    trades: int
    quotes: int
    messages: int


def sample(simulator: Simulator) -> Sample:
    """The counters now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Sample(
        time.monotonic(),
        usage.ru_utime + usage.ru_stime,
        simulator.trades_made,
        simulator.quotes_made,
        sum(site.messages_sent for site in simulator.sites.values()),
    )


def rates(before: Sample, after: Sample) -> dict[str, float]:
    """Per second and in percent of one core, between two samples."""
    seconds = max(1e-9, after.at - before.at)
    return {
        "trades_per_second": round((after.trades - before.trades) / seconds, 1),
        "quotes_per_second": round((after.quotes - before.quotes) / seconds, 1),
        "messages_per_second": round((after.messages - before.messages) / seconds, 1),
        "cpu_percent": round((after.cpu_seconds - before.cpu_seconds) / seconds * 100, 1),
    }


class Reporter:
    """Keeps the last second's rates and prints a line every `seconds`, when that is not 0."""

    def __init__(self, simulator: Simulator, seconds: float) -> None:
        self._simulator = simulator
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report until the block ends."""
        task = asyncio.get_running_loop().create_task(self._run()) if self._seconds > 0 else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _run(self) -> None:
        before = sample(self._simulator)
        while True:
            await asyncio.sleep(self._seconds)
            after = sample(self._simulator)
            found = rates(before, after)
            before = after
            clients = sum(len(site.sessions) for site in self._simulator.sites.values())
            print(
                f"venue_sim: {found['trades_per_second']:.0f} trades/s, {found['quotes_per_second']:.0f} quotes/s made; "
                f"{found['messages_per_second']:.0f} messages/s to {clients} clients; CPU {found['cpu_percent']:.0f} %",
                flush=True,
            )


def stats(simulator: Simulator, first: Sample) -> dict[str, Any]:
    """Everything since the start."""
    now = sample(simulator)
    return {
        "counters": asdict(now),
        "since_start": rates(first, now),
        "venues": {
            name: {
                "clients": len(site.sessions),
                "requests": site.requests,
                "messages_sent": site.messages_sent,
            }
            for name, site in simulator.sites.items()
        },
    }
