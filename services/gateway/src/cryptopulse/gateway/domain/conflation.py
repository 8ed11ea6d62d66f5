"""Conflation: the interval classes that clients are put into, and the ring a client resumes from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

CLASSES_MS: Final = (0, 100, 1_000, 5_000)
"""Clients of one class share one encode per message or period."""

RING_MESSAGES: Final = 300
RING_SECONDS: Final = 60
SIGNALS_KEPT: Final = 30
SIGNALS_SECONDS: Final = 86_400
"""Signals are rare: a day of them stands for a minute of what is frequent."""


def interval_class(every_ms: int) -> int:
    """The class for a wish: the shortest one that is not faster than asked, at most 5,000 ms."""
    for candidate in CLASSES_MS:
        if every_ms <= candidate:
            return candidate
    return CLASSES_MS[-1]


@dataclass(slots=True)
class Ring:
    """The newest messages of one sequence under its producer's epoch, kept whether or not somebody listens here.

    At most `size` of them, none older than `seconds`. `epoch` 0: nothing is known yet.
    """

    size: int = RING_MESSAGES
    seconds: int = RING_SECONDS
    epoch: int = 0
    newest: int = 0
    at_ms: int = 0
    is_torn: bool = False
    """Messages may have passed unseen since the newest one."""
    items: deque[tuple[int, int, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.items = deque(maxlen=self.size)

    def record(self, epoch: int, offset: int, at_ms: int, payload: Any) -> bool:
        """Take a message; False when it is not newer than what is here. A higher epoch starts anew; what is too old leaves."""
        if epoch != self.epoch:
            if epoch < self.epoch:
                return False
            self.epoch = epoch
            self.items.clear()
        elif offset <= self.newest:
            return False
        self.newest, self.at_ms, self.is_torn = offset, at_ms, False
        items = self.items
        items.append((offset, at_ms, payload))
        horizon = at_ms - self.seconds * 1_000
        while items[0][1] < horizon:
            items.popleft()
        return True

    def stand_at(self, epoch: int, offset: int, at_ms: int) -> None:
        """The producer's own word of where it stands, for what was published before this process listened."""
        if (epoch, offset) > (self.epoch, self.newest):
            if epoch != self.epoch:
                self.items.clear()
            self.epoch, self.newest, self.at_ms = epoch, offset, at_ms

    def since(self, offset: int) -> list[tuple[int, Any]] | None:
        """The messages after `offset`, each once and in order; None when one of them is not here."""
        missing = self.newest - offset
        if missing < 0 or offset < 0 or self.is_torn:
            return None
        found = [(at, payload) for at, _, payload in self.items if at > offset]
        is_whole = len(found) == missing and (not found or found[0][0] == offset + 1)
        return found if is_whole else None


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
