"""What a fault case measured, as one line: `fault NN name: sent confirmed handled duplicates lost stall_s recovery_s`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LINES: list[str] = []
"""The lines of this session, printed again at its end."""


@dataclass
class Report:
    """The figures of one case. None is printed as `-`: the case has no such figure.

    `sent` is what the source booked, `confirmed` what the broker (or receiver) confirmed, `handled` what has taken
    effect, `duplicates` what came again and was dropped, `lost` and `doubled` what is wrong: both must be 0.
    """

    number: int
    name: str
    sent: int | None = None
    confirmed: int | None = None
    handled: int | None = None
    duplicates: int | None = None
    lost: int | None = None
    doubled: int | None = None
    stall_s: float | None = None
    recovery_s: float | None = None
    notes: dict[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """The case in one line."""
        figures = {
            "sent": self.sent,
            "confirmed": self.confirmed,
            "handled": self.handled,
            "duplicates": self.duplicates,
            "lost": self.lost,
            "doubled": self.doubled,
            "stall_s": self.stall_s,
            "recovery_s": self.recovery_s,
            **self.notes,
        }
        words = " ".join(f"{name}={_shown(value)}" for name, value in figures.items())
        return f"fault {self.number:02d} {self.name}: {words}"

    def close(self) -> None:
        """Print the line, then hold the invariant: nothing lost, nothing doubled."""
        LINES.append(self.line())
        print(self.line())
        assert self.lost in (0, None), f"lost: {self.line()}"
        assert self.doubled in (0, None), f"doubled: {self.line()}"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


@dataclass
class Pulse:
    """How long nothing new came: fed with whatever identifies the newest thing, at each look."""

    seen: object = None
    at: float = field(default_factory=time.monotonic)
    stall: float = 0.0

    def look(self, thing: object) -> None:
        """Note the newest thing; a change ends the stall."""
        now = time.monotonic()
        self.stall = max(self.stall, now - self.at)
        if thing is not None and thing != self.seen:
            self.seen, self.at = thing, now


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began
