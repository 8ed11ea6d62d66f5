"""What is known of the venues' feeds: the newest status of each, and whether a symbol's silence is the venue's."""

from __future__ import annotations

from typing import Any

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.gateway.domain import stream_data

REPORT_STALE_MS = 15_000
"""A venue whose ingestor has said nothing for so long is `unknown`."""


class Feeds:
    """The newest `FeedStatus` of every venue and part; stand-bys do not count while an active one reports."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by: dict[tuple[str, str], FeedStatus] = {}

    def apply(self, status: FeedStatus) -> bool:
        """Take a report; False when it is older than what is known, or from a stand-by beside an active one."""
        key = (status.venue, status.part)
        known = self._by.get(key)
        if known is not None:
            fresh = status.at_us - known.at_us < REPORT_STALE_MS * 1_000
            if status.at_us < known.at_us or (known.active and not status.active and fresh):
                return False
        self._by[key] = status
        return True

    def public(self) -> list[dict[str, Any]]:
        """The feeds as clients see them, by venue."""
        now = self._clock.now_us()
        rows = [stream_data.feed(status, now) for _, status in sorted(self._by.items())]
        for row in rows:
            if row["reported_age_ms"] > REPORT_STALE_MS:
                row["state"] = "unknown"
        return rows

    @property
    def is_simulated(self) -> bool:
        """True when a feed says that its ticks come from the simulator."""
        return any(status.simulated for status in self._by.values())

    @property
    def is_live(self) -> bool:
        """True when at least one feed is live by a recent report."""
        now = self._clock.now_us()
        return any(
            status.state == "live" and now - status.at_us < REPORT_STALE_MS * 1_000
            for status in self._by.values()
        )
