"""The way out: the first SIGTERM or SIGINT starts a drain of bounded steps, a second one aborts at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.telemetry.logging import get_logger

ABORTED: Final = 1
SAME_STOP_SECONDS: Final = 0.5
"""A supervisor that signals the process and its group, or Ctrl-C in a terminal, delivers one wish twice."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DrainStep:
    """One step of the drain with its own limit."""

    name: str
    run: Callable[[], Awaitable[None]]
    timeout_seconds: float


class Signals:
    """Listens for SIGTERM and SIGINT. `stop` is set by the first; one that comes later ends the process with 1."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._first_at = 0.0

    def install(self) -> None:
        """Take over both signals of the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def remove(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self.stop.is_set():
            if now - self._first_at < SAME_STOP_SECONDS:
                return
            log.error("aborted by a second signal", signal=number.name)
            os._exit(ABORTED)
        self._first_at = now
        log.info("signal received", signal=number.name)
        self.stop.set()


async def run_steps(steps: list[DrainStep]) -> list[str]:
    """Run the steps in order, each within its limit; a failing step is logged and does not stop the next.

    Returns the names of the steps that failed or ran out of time.
    """
    troubled = []
    for step in steps:
        try:
            await asyncio.wait_for(step.run(), step.timeout_seconds)
        except TimeoutError:
            troubled.append(step.name)
            log.warning("drain step ran out of time", step=step.name, timeout_seconds=step.timeout_seconds)
        except Exception:
            troubled.append(step.name)
            log.exception("drain step failed", step=step.name)
    return troubled
