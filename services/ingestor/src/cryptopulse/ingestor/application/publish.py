"""The publisher of one (venue, shard): small batches in order, confirmed in a window, bounded when the bus is away (step 4)."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import convenience_key_of, key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.ticks import BACKFILL, SNAPSHOT, Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.topics import TICKS
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.ingestor.domain.buffering import Taken, TickBuffer
from cryptopulse.ingestor.domain.clock_offset import ClockOffset

FLUSH_TICKS: Final = 512
QUOTE_SECONDS: Final = 0.1
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

_TICKS = counter("cryptopulse_ticks_total", "Ticks handed to the bus.", ("venue", "kind"))
_DROPPED = counter(
    "cryptopulse_ticks_dropped_total", "Ticks not sent as they came, by reason.", ("venue", "reason")
)
_DEPTH = gauge("cryptopulse_ingest_buffer_trades", "Trades that wait for the bus.", ("venue", "shard"))
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TickTopics:
    """For which symbols the per-symbol keys are sent: all, none, or those named."""

    everything: bool
    symbols: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> TickTopics:
        """`all`, `none`, or a comma list of symbols."""
        if text.strip().lower() in ("all", "none"):
            return cls(text.strip().lower() == "all")
        return cls(False, frozenset(part.strip().upper() for part in text.split(",") if part.strip()))

    def keys(self, venue: str, taken: Taken) -> list[str]:
        """The CC keys of a batch: one per symbol that is in it and asked for."""
        if not self.everything and not self.symbols:
            return []
        present = {trade.symbol for trade in taken.trades}
        present.update(quote.symbol for quote in taken.quotes)
        present.update(reference.symbol for reference in taken.references)
        present.update(bar.symbol for bar in taken.conflated)
        wanted = present if self.everything else present & self.symbols
        return [_convenience(venue, symbol) for symbol in sorted(wanted)]


_CONVENIENCE: dict[tuple[str, str], str] = {}


def _convenience(venue: str, symbol: str) -> str:
    key = _CONVENIENCE.get((venue, symbol))
    if key is None:
        key = _CONVENIENCE[venue, symbol] = convenience_key_of(TICKS, venue=venue, symbol=symbol)
    return key


def flush_seconds_for(buffers: int) -> float:
    """5 ms up to four buffers, 10 ms up to eight, 25 ms above: the messages per second stay bounded."""
    return 0.005 if buffers <= 4 else 0.010 if buffers <= 8 else 0.025


class ShardPublisher:
    """Ticks of one venue and shard to the bus, in the order given. `add_*` never wait; `run` sends."""

    def __init__(
        self,
        bus: Publisher,
        clock: Clock,
        *,
        venue: str,
        shard: int,
        part: str,
        limit: int,
        flush_seconds: float,
        topics: TickTopics,
        simulated: bool,
        offset: ClockOffset,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._venue = venue
        self._shard = shard
        self._part = part
        self._flush_seconds = flush_seconds
        self._topics = topics
        self._simulated = simulated
        self._offset = offset
        self._key = key_of(TICKS, shard=shard, venue=venue)
        self._wake = asyncio.Event()
        self._armed = False
        self._quotes_armed = False
        self._quotes_due = False
        self._quotes_sent = 0.0
        self._seq = 0
        self._in_hand: TickBatch | None = None
        self._folded = 0
        self.epoch = 0
        self.last_tick_us: int | None = None
        self.buffer = TickBuffer(limit)

    def add_trade(self, trade: Trade) -> None:
        """Take one trade; the batch leaves at 512 ticks or after the flush time."""
        buffer = self.buffer
        buffer.add_trade(trade)
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(self._flush_seconds, self._wake.set)
        elif len(buffer.trades) >= FLUSH_TICKS:
            self._wake.set()

    def add_quote(self, quote: Quote) -> None:
        """Take a quote; the newest of each symbol leaves at most ten times a second."""
        self.buffer.add_quote(quote)
        if not self._quotes_armed:
            self._quotes_armed = True
            since = self._clock.monotonic() - self._quotes_sent
            wait = max(self._flush_seconds, QUOTE_SECONDS - since)
            asyncio.get_running_loop().call_later(wait, self._quotes_now)

    def add_reference(self, reference: ReferencePrice) -> None:
        """Take a reference price."""
        self.buffer.add_reference(reference)
        self._wake.set()

    def _quotes_now(self) -> None:
        self._quotes_due = True
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled. A bus that is away stops nothing: what waits is bounded and conflated with counts."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._armed = False
            while self._in_hand is not None or self.buffer.has_urgent or self._quotes_due:
                await self._send_one()
                if self.buffer.depth < FLUSH_TICKS and not self._quotes_due and not self._wake.is_set():
                    break
            if self.buffer.has_urgent and not self._armed:
                self._armed = True
                asyncio.get_running_loop().call_later(self._flush_seconds, self._wake.set)

    async def drained(self) -> None:
        """Wait until nothing waits any more."""
        while self._in_hand is not None or self.buffer.has_urgent:
            self._wake.set()
            await asyncio.sleep(0.01)

    def discard(self) -> None:
        """Forget what waits: another replica serves this part now."""
        waiting = self.buffer.take(self.buffer.depth)
        _DROPPED.labels(self._venue, "lease_lost").inc(len(waiting.trades))
        self._in_hand = None

    async def _send_one(self) -> None:
        if self._in_hand is None:
            self._in_hand = self._batch()
        batch = self._in_hand
        if batch is None:
            return
        taken = Taken(batch.trades, batch.quotes, batch.references, batch.conflated)
        keys = self._topics.keys(self._venue, taken)
        message_id = uuid.uuid4().hex
        pause = FIRST_PAUSE_SECONDS
        while self._in_hand is batch:
            try:
                await self._bus.publish(TICKS, batch, key=self._key, cc=keys, message_id=message_id)
                self._in_hand = None
                self._count(taken)
            except BusUnavailable:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def _batch(self) -> TickBatch | None:
        taken = self.buffer.take(FLUSH_TICKS, quotes=self._quotes_due)
        if self._quotes_due:
            self._quotes_due = self._quotes_armed = False
            self._quotes_sent = self._clock.monotonic()
        if not len(taken):
            return None
        self._learn_offset(taken.trades)
        self._seq += 1
        return TickBatch(
            venue=self._venue,
            shard=self._shard,
            epoch=self.epoch,
            seq=self._seq,
            sent_us=self._clock.now_us(),
            clock_offset_us=self._offset.us,
            simulated=self._simulated,
            part=self._part,
            trades=taken.trades,
            quotes=taken.quotes,
            references=taken.references,
            conflated=taken.conflated,
        )

    def _learn_offset(self, trades: list[Trade]) -> None:
        for trade in trades[-8:]:
            if not trade.flags & (SNAPSHOT | BACKFILL):
                self._offset.sample(trade.event_us, trade.received_us)

    def _count(self, taken: Taken) -> None:
        _TICKS.labels(self._venue, "trade").inc(len(taken.trades))
        _TICKS.labels(self._venue, "quote").inc(len(taken.quotes))
        _TICKS.labels(self._venue, "reference").inc(len(taken.references))
        _DEPTH.labels(self._venue, str(self._shard)).set(self.buffer.depth)
        folded = self.buffer.conflated_trades
        if folded > self._folded:
            _DROPPED.labels(self._venue, "conflated").inc(folded - self._folded)
            log.warning(
                "trades were conflated", venue=self._venue, shard=self._shard, trades=folded - self._folded
            )
            self._folded = folded
        self.last_tick_us = self._clock.now_us()
