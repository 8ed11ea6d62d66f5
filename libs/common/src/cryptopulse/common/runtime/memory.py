"""Full rounds of the garbage collector stop the event loop; here they are kept short."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any, Final

FULL: Final = 2
LONG_SECONDS: Final = 0.01
THAW_SECONDS: Final = 6 * 3_600


class LongLived:
    """Takes what lives long out of the rounds: what is there after the start, and what survives a full round that was long.

    A full round over the objects of a service (modules, pools, the state of all its series) takes 50 ms and more, and comes
    again whenever a quarter more than what is looked at was made. What is frozen is still freed by its reference count;
    only a cycle that became garbage later has to wait: every `THAW_SECONDS` one full round looks at everything.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._thawed = time.monotonic()

    def start(self) -> None:
        """From now on, for the life of the process."""
        gc.collect()
        gc.freeze()
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
            if now - self._thawed >= THAW_SECONDS:
                self._thawed = now
                gc.unfreeze()
        elif now - self._began >= LONG_SECONDS:
            gc.freeze()
