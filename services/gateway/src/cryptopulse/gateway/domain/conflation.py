"""Conflation: the interval classes that clients are put into, and the ring a client resumes from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

CLASSES_MS: Final = (0, 100, 1_000, 5_000)
"""Clients of one class share one encode per message or period."""

RING_MESSAGES: Final = 300
RING_SECONDS: Final = 60


def interval_class(every_ms: int) -> int:
    """The class for a wish: the shortest one that is not faster than asked, at most 5,000 ms."""
    for candidate in CLASSES_MS:
        if every_ms <= candidate:
            return candidate
    return CLASSES_MS[-1]


@dataclass(slots=True)
class Ring:
    """The newest messages of a stream: at most `RING_MESSAGES`, none older than `RING_SECONDS`."""

    items: deque[tuple[int, int, Any]] = field(default_factory=lambda: deque(maxlen=RING_MESSAGES))

    def append(self, offset: int, at_ms: int, payload: Any) -> None:
        """Add a message; what is too old leaves."""
        items = self.items
        items.append((offset, at_ms, payload))
        horizon = at_ms - RING_SECONDS * 1_000
        while items[0][1] < horizon:
            items.popleft()

    def since(self, offset: int, newest: int) -> list[tuple[int, Any]] | None:
        """The messages after `offset` up to `newest`, each once and in order; None when one of them is no longer here."""
        if offset > newest or offset < 0:
            return None
        if offset == newest:
            return []
        found = [(at, payload) for at, _, payload in self.items if at > offset]
        if not found or found[0][0] != offset + 1 or found[-1][0] != newest or len(found) != newest - offset:
            return None
        return found

    def clear(self) -> None:
        """Forget everything: a new epoch has begun."""
        self.items.clear()


@dataclass(slots=True)
class Meter:
    """A token bucket for inbound messages of one socket: `rate` per second, `burst` at once."""

    rate: float
    burst: float
    level: float = -1.0
    at: float = 0.0
    refused: int = 0

    def take(self, now: float) -> bool:
        """True when one more message is allowed at `now` (monotonic seconds); refusals are counted."""
        if self.level < 0:
            self.level, self.at = self.burst, now
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            self.refused += 1
            return False
        self.level -= 1
        return True
