"""A start at which those who listen are not there yet: told without alarm, until it lasts."""

from __future__ import annotations

import logging
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import BusUnavailable, NoQueueYet

UNHEARD_SECONDS: Final = 30.0


class Unheard:
    """How loudly to tell that no queue is bound yet. All services start together, so for half a minute that is no news."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: float | None = None

    def level(self, error: BusUnavailable) -> int | None:
        """The level to log at: info at first, a warning for each half minute that it lasts, None between."""
        if not isinstance(error, NoQueueYet):
            return logging.WARNING
        now = self._clock.monotonic()
        if self._told is None:
            self._told = now
            return logging.INFO
        if now - self._told < UNHEARD_SECONDS:
            return None
        self._told = now
        return logging.WARNING
