"""Limits on what we send a venue outside REST: attempts to connect and control messages."""

from __future__ import annotations

import asyncio
from collections import deque

from cryptopulse.common.clock import Clock
from cryptopulse.ingestor.application.ports import ConnectionRules


class Pace:
    """At most `per_second` evenly, and at most `most` in any `window_seconds`, in order of asking."""

    def __init__(self, clock: Clock, per_second: float, most: int = 0, window_seconds: float = 0.0) -> None:
        self._clock = clock
        self._gap = 1.0 / per_second
        self._most = most
        self._window = window_seconds
        self._next = 0.0
        self._recent: deque[float] = deque(maxlen=most or None)
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        """Return when one more is allowed."""
        async with self._lock:
            wait = self.claim()
            if wait > 0:
                await asyncio.sleep(wait)

    def claim(self) -> float:
        """Take the next turn, before all who wait in line but the first: in how many seconds it has come."""
        now = self._clock.monotonic()
        at = max(now, self._next)
        if self._most and len(self._recent) == self._most:
            at = max(at, self._recent[0] + self._window)
        self._next = at + self._gap
        if self._most:
            self._recent.append(at)
        return at - now


def connect_pace(clock: Clock, rules: ConnectionRules) -> Pace:
    """The pace of connection attempts of a venue."""
    return Pace(clock, rules.connects_per_second, rules.connects_per_window, rules.window_seconds)
