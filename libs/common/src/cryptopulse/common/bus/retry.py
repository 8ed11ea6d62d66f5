"""How long to wait before the next try: bounded exponential back-off with full jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


def full_jitter(
    attempt: int, *, base_seconds: float, cap_seconds: float, source: random.Random | None = None
) -> float:
    """A uniform random pause in [0, min(cap, base * 2**attempt)]; `attempt` counts from 0.

    Full jitter as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    ceiling = min(cap_seconds, base_seconds * 2.0 ** min(attempt, 30))
    return (source or _shared).uniform(0.0, ceiling)


_shared = random.Random()


@dataclass(slots=True)
class Backoff:
    """Successive pauses; `reset` after success. The first is short and never 0."""

    base_seconds: float = 0.2
    cap_seconds: float = 5.0
    attempt: int = field(default=0, init=False)

    def next(self) -> float:
        """The pause before the next try, at least a tenth of the base."""
        pause = full_jitter(self.attempt, base_seconds=self.base_seconds, cap_seconds=self.cap_seconds)
        self.attempt += 1
        return max(pause, self.base_seconds / 10)

    def reset(self) -> None:
        """The next pause is the first again."""
        self.attempt = 0
