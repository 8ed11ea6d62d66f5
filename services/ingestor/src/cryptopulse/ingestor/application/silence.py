"""The third level of liveness: one market's stream that is silent while the connection is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.ports import Venue
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.staleness import StreamPace

CHECK_SECONDS: Final = 2.0
"""At most one market is checked by REST in this time."""
ASK_IDS: Final = 1_000

_SILENT = counter(
    "cryptopulse_streams_silent_total",
    "Silent markets checked by REST, by what was found.",
    ("venue", "outcome"),
)
log = get_logger(__name__)


class SilenceWatch:
    """Compares each market with its own pace; asks the venue before it blames the stream."""

    def __init__(
        self,
        venue: Venue,
        ingest: Ingest,
        clock: Clock,
        natives: Mapping[str, str],
        on_missed: Callable[[Gap], None],
    ) -> None:
        self._venue = venue
        self._ingest = ingest
        self._clock = clock
        self._natives = natives
        self._on_missed = on_missed
        self._paces: dict[str, tuple[StreamPace, int]] = {}
        self._quiet_until: dict[str, float] = {}
        self._next_check = 0.0

    def reset(self) -> None:
        """The sockets were away: silence until now proves nothing."""
        self._paces.clear()

    async def tick(self) -> str | None:
        """Look at all markets (call about every second); the symbol whose stream must be subscribed anew, if any."""
        now = self._clock.monotonic()
        silent: list[str] = []
        for symbol, (last_id, _) in self._ingest.guard.last_ids().items():
            pace, known = self._paces.get(symbol, (None, 0))
            if pace is None:
                self._paces[symbol] = StreamPace(now), last_id
            elif last_id != known:
                pace.seen(now)
                self._paces[symbol] = pace, last_id
            elif pace.is_silent(now) and now >= self._quiet_until.get(symbol, 0.0):
                silent.append(symbol)
        if not silent or now < self._next_check:
            return None
        self._next_check = now + CHECK_SECONDS
        symbol = max(silent, key=lambda name: now - self._paces[name][0].last)
        self._quiet_until[symbol] = now + self._paces[symbol][0].patience_seconds
        return symbol if await self._missed(symbol) else None

    async def _missed(self, symbol: str) -> bool:
        """True when the venue has newer trades than its stream brought; they are handed to the repair."""
        last_id, last_us = self._ingest.guard.last_ids()[symbol]
        native = self._natives.get(symbol)
        if native is None:
            return False
        asked = Gap(symbol, last_id + 1, last_id + ASK_IDS, last_us, self._clock.now_us())
        try:
            newer = await self._venue.trades(native, asked)
        except CryptoPulseError as error:
            log.info("silent market not checked", venue=self._venue.name, symbol=symbol, error=str(error))
            return False
        newest = max((trade.trade_id for trade in newer), default=last_id)
        missed = newest > (self._ingest.guard.last_of(symbol) or 0)
        _SILENT.labels(self._venue.name, "missed" if missed else "quiet").inc()
        if missed:
            log.warning("silent stream", venue=self._venue.name, symbol=symbol, missed=newest - last_id)
            self._on_missed(replace(asked, last_id=newest))
        return missed
