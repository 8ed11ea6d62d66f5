"""When a silent stream is suspicious: judged by its own usual pace."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

FLOOR_SECONDS: Final = 10.0
CAP_SECONDS: Final = 600.0
FACTOR: Final = 20.0
SAMPLES: Final = 64


class StreamPace:
    """The usual time between two messages of one stream, on our clock."""

    __slots__ = ("_gaps", "last")

    def __init__(self, now: float) -> None:
        self.last = now
        self._gaps: deque[float] = deque(maxlen=SAMPLES)

    def seen(self, now: float) -> None:
        """A message came."""
        self._gaps.append(now - self.last)
        self.last = now

    @property
    def patience_seconds(self) -> float:
        """How long silence is normal: 20 medians, between 10 s and 10 min; the cap before anything came."""
        if not self._gaps:
            return CAP_SECONDS
        return min(CAP_SECONDS, max(FLOOR_SECONDS, FACTOR * median(self._gaps)))

    def is_silent(self, now: float) -> bool:
        """True when the stream has been quiet for longer than its patience."""
        return now - self.last > self.patience_seconds
