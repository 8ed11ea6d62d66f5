"""Conflation: the interval classes that clients are put into, and the ring a client resumes from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

CLASSES_MS: Final = (0, 100, 1_000, 5_000)
"""Clients of one class share one encode per message or period."""

RING_MESSAGES: Final = 300
RING_SECONDS: Final = 60
BURST_MESSAGES: Final = 2_000
BURST_SECONDS: Final = 20
"""Of a fast series more is kept for a shorter time: 100 trades a second would leave 3 s of `RING_MESSAGES`."""
SIGNALS_KEPT: Final = 30
SIGNALS_SECONDS: Final = 86_400
"""Signals are rare: a day of them stands for a minute of what is frequent."""
NOTHING_YET: Final = "0"
"""The epoch of a sequence of which nothing was heard yet: the same on every replica."""


def interval_class(every_ms: int) -> int:
    """The class for a wish: the shortest one that is not faster than asked, at most 5,000 ms."""
    for candidate in CLASSES_MS:
        if every_ms <= candidate:
            return candidate
    return CLASSES_MS[-1]


@dataclass(slots=True)
class Ring:
    """The newest messages of one sequence under its producer's epoch, kept whether or not somebody listens here.

    The newest `size` of the last `seconds`, and of the last `BURST_SECONDS` up to `BURST_MESSAGES`.
    """

    size: int = RING_MESSAGES
    seconds: int = RING_SECONDS
    is_torn: bool = False
    """Messages may have passed unseen since the newest one."""
    epoch: int = 0
    newest: int = 0
    at_ms: int = 0
    has_one_epoch: bool = True
    items: deque[tuple[int, int, Any]] = field(default_factory=lambda: deque(maxlen=BURST_MESSAGES))

    @property
    def epoch_text(self) -> str:
        """The epoch as clients see it; `NOTHING_YET` before the first message."""
        return f"{self.epoch:x}"

    def record(self, epoch: int, offset: int, at_ms: int, payload: Any) -> bool:
        """Take a message; False when it is not newer than what is here. A higher epoch starts anew; what is too old leaves."""
        if epoch != self.epoch:
            if epoch < self.epoch:
                return False
            self._begin(epoch)
        elif offset <= self.newest:
            return False
        self.newest, self.at_ms, self.is_torn = offset, at_ms, False
        items = self.items
        items.append((offset, at_ms, payload))
        horizon = at_ms - self.seconds * 1_000
        while items[0][1] < horizon:
            items.popleft()
        if len(items) > self.size:
            horizon = at_ms - BURST_SECONDS * 1_000
            while len(items) > self.size and items[0][1] < horizon:
                items.popleft()
        return True

    def _begin(self, epoch: int) -> None:
        self.has_one_epoch = not self.epoch
        self.epoch = epoch
        self.items.clear()

    def stand_at(self, epoch: int, offset: int, at_ms: int) -> None:
        """The producer's own word of where it stands, for what was published before this process listened.

        A message up to there that is still on its way will not be taken: only for a sequence to which nobody listens.
        """
        if (epoch, offset) > (self.epoch, self.newest):
            if epoch != self.epoch:
                self._begin(epoch)
            self.newest, self.at_ms = offset, at_ms

    def since(self, epoch: str, offset: int) -> list[tuple[int, Any]] | None:
        """The messages after a place, each once and in order; None when one of them is not here.

        `NOTHING_YET` is the place before the first message of all.
        """
        if self.is_torn or offset < 0:
            return None
        is_known = self.has_one_epoch and not offset if epoch == NOTHING_YET else epoch == self.epoch_text
        missing = self.newest - offset
        if not is_known or missing < 0:
            return None
        found = [(at, payload) for at, _, payload in self.items if at > offset]
        is_whole = len(found) == missing and (not found or found[0][0] == offset + 1)
        return found if is_whole else None

    def rebuild(self, older: Iterable[tuple[int, int, int, Any]]) -> None:
        """Put (epoch, offset, time, payload) behind what is here."""
        held = [(self.epoch, *item) for item in self.items]
        self.epoch = self.newest = 0
        self.has_one_epoch = True
        self.items.clear()
        for item in [*older, *held]:
            self.record(*item)


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
