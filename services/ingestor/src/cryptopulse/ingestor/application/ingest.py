"""What a venue's frames lead to: guard, route to the shard, count, quarantine (step 3 of the route)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.ticks import Quote, Trade
from cryptopulse.common.contracts.topics import shard_of
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.ingestor.application.publish import ShardPublisher
from cryptopulse.ingestor.domain.ordering import Gap, TradeGuard
from cryptopulse.ingestor.domain.output import RefusalReason

QUARANTINE_FRAMES: Final = 1_000
QUARANTINE_BYTES: Final = 2_000
"""Of a refused frame so much is kept."""
FUTURE_US: Final = 43_200_000_000
"""Half a day: a trade further ahead is not believed at first."""
AHEAD_BELIEVED: Final = 5

_REFUSED = counter(
    "cryptopulse_frames_refused_total", "Frames or rows that were not believed.", ("venue", "reason")
)
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A refused frame: when, why, and its beginning as it came."""

    at_us: int
    reason: RefusalReason
    detail: str
    frame: bytes


class Ingest:
    """Takes what the parsers of one venue read. One guard for all its connections, so overlap never doubles."""

    def __init__(
        self, venue: str, clock: Clock, publishers: Sequence[ShardPublisher], *, hold_us: int, shards: int
    ) -> None:
        self.venue = venue
        self.guard = TradeGuard(hold_us=hold_us)
        self.quarantine: deque[Quarantined] = deque(maxlen=QUARANTINE_FRAMES)
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._publishers = publishers
        self._shards = shards
        self._by_symbol: dict[str, ShardPublisher] = {}
        self._newest_us = 0
        self._ahead = 0
        self._offer = self.guard.offer

    def trade(self, trade: Trade) -> None:
        """One trade from a reader: on to the bus when it is its turn."""
        if trade.event_us - trade.received_us > FUTURE_US and self._is_ahead(trade):
            return
        if self._offer(trade):
            self._emit(trade)
        else:
            for released in self.guard.settle(trade):
                self._emit(released)

    def trades(self, trades: Sequence[Trade]) -> None:
        """Several trades of one message."""
        for trade in trades:
            self.trade(trade)

    def quote(self, quote: Quote) -> None:
        """The newest best bid and ask; a crossed or empty book is a venue's fault and not passed on."""
        if quote.bid > quote.ask:
            self.refused("bad_number", b"", f"{quote.symbol}: crossed book {quote.bid} > {quote.ask}")
            return
        publisher = self._by_symbol.get(quote.symbol) or self._route(quote.symbol)
        publisher.add_quote(quote)

    def refused(self, reason: RefusalReason, frame: bytes, detail: str) -> None:
        """Keep the beginning of what was refused, count it by its reason."""
        self.refusals[reason] += 1
        _REFUSED.labels(self.venue, reason).inc()
        self.quarantine.append(
            Quarantined(self._clock.now_us(), reason, detail[:300], bytes(frame[:QUARANTINE_BYTES]))
        )
        if self.refusals[reason] in (1, 10, 100) or self.refusals[reason] % 1_000 == 0:
            log.warning(
                "frame refused",
                venue=self.venue,
                reason=reason,
                detail=detail[:200],
                times=self.refusals[reason],
            )

    def repaired(self, gap: Gap, trades: Sequence[Trade]) -> list[Gap]:
        """Hand on what a repair brought and what waited behind it; what is lost for good."""
        passed, lost = self.guard.repaired(gap, trades)
        for trade in passed:
            self._emit(trade)
        return lost

    def repaired_late(self, hole: Gap, trades: Sequence[Trade]) -> None:
        """Hand on what a repair brought after the stream had gone on without it."""
        for trade in self.guard.repaired_late(hole, trades):
            self._emit(trade)

    def forget(self) -> None:
        """Drop what waits and every id: another replica goes on from here."""
        self.guard.reset()
        for publisher in self._publishers:
            publisher.discard()

    def set_epoch(self, epoch: int) -> None:
        """All that is sent from now on carries this epoch."""
        for publisher in self._publishers:
            publisher.epoch = epoch

    @property
    def publishers(self) -> Sequence[ShardPublisher]:
        """The publishers by shard."""
        return self._publishers

    @property
    def last_tick_us(self) -> int | None:
        """When anything was handed to the bus last."""
        return max((p.last_tick_us for p in self._publishers if p.last_tick_us is not None), default=None)

    def _emit(self, trade: Trade) -> None:
        publisher = self._by_symbol.get(trade.symbol) or self._route(trade.symbol)
        publisher.add_trade(trade)

    def _route(self, symbol: str) -> ShardPublisher:
        publisher = self._publishers[shard_of(base_of(symbol), self._shards)]
        self._by_symbol[symbol] = publisher
        return publisher

    def _is_ahead(self, trade: Trade) -> bool:
        """True for a time that lies half a day ahead of both our clock and all that this venue sent before.

        Such a trade would close candles too early. Five in a row are the venue's clock, and believed.
        """
        if trade.event_us <= self._newest_us + FUTURE_US:
            return False
        self._ahead += 1
        if self._ahead >= AHEAD_BELIEVED:
            self._newest_us, self._ahead = trade.event_us, 0
            return False
        self.refused("bad_time", b"", f"{trade.symbol} {trade.trade_id}: {trade.event_us} lies in the future")
        return True
