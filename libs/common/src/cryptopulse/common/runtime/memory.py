"""Full rounds of the garbage collector stop the event loop; here they are kept short."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any, Final

FULL: Final = 2
LONG_SECONDS: Final = 0.01
THAW_SECONDS: Final = 600.0
THAW_GROWTH: Final = 1.5


class LongLived:
    """Takes what lives long out of the rounds: what is there after the start, and what survives a full round that was long.

    A full round over the objects of a service (modules, pools, the state of all its series) takes 50 ms and more, and comes
    again whenever a quarter more than what is looked at was made. What is frozen is still freed by its reference count;
    a cycle that became garbage later has to wait, so everything is looked at once in `THAW_SECONDS`, and as soon as half as
    much again is frozen as the last look at everything left (a shard that was given back is such a cycle).
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._thawed_at = 0.0
        self._kept = 0
        self._is_whole = False
        self._has_grown = False

    def start(self) -> None:
        """From now on, for the life of the process."""
        gc.collect()
        gc.freeze()
        self._thawed_at = time.monotonic()
        self._kept = gc.get_freeze_count()
        gc.callbacks.append(self._on_round)

    def stop(self) -> None:
        """As if it had never started."""
        if self._on_round in gc.callbacks:
            gc.callbacks.remove(self._on_round)
            gc.unfreeze()

    def _on_round(self, phase: str, info: Mapping[str, Any]) -> None:
        if info["generation"] != FULL:
            return
        now = time.monotonic()
        if phase == "start":
            self._began = now
            self._is_whole = self._has_grown or now - self._thawed_at >= THAW_SECONDS
            if self._is_whole:
                self._thawed_at = now
                gc.unfreeze()
        elif self._is_whole or now - self._began >= LONG_SECONDS:
            gc.freeze()
            # It counts one by one: only here, after a round that has looked at them one by one.
            frozen = gc.get_freeze_count()
            if self._is_whole:
                self._kept = frozen
            self._has_grown = frozen > THAW_GROWTH * self._kept
