"""How long to wait before the next attempt: exponential with full jitter."""

from __future__ import annotations

from collections.abc import Callable
from random import random


class Backoff:
    """Full jitter: attempt n waits uniformly between 0 and min(cap, base * 2^n). Reset only by what proves health."""

    __slots__ = ("_base", "_cap", "_random", "attempts")

    def __init__(
        self, base_seconds: float = 0.5, cap_seconds: float = 30.0, rand: Callable[[], float] = random
    ) -> None:
        self._base = base_seconds
        self._cap = cap_seconds
        self._random = rand
        self.attempts = 0

    def next_seconds(self) -> float:
        """The next pause; never under 50 ms, so that nothing spins."""
        ceiling = min(self._cap, self._base * float(1 << min(self.attempts, 16)))
        self.attempts += 1
        return max(0.05, self._random() * ceiling)

    def reset(self) -> None:
        """Data flowed for long enough: the next failure is a first one."""
        self.attempts = 0
