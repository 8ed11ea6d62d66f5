"""The publisher of one (venue, shard): small batches in order, confirmed in a window, bounded when the bus is away (step 4)."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptopulse.common.bus.routing import convenience_key_of, key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.ticks import (
    BACKFILL,
    SNAPSHOT,
    Conflated,
    Quote,
    ReferencePrice,
    TickBatch,
    Trade,
)
from cryptopulse.common.contracts.topics import TICKS
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.ingestor.application.ports import TickBus
from cryptopulse.ingestor.application.window import Sent, SentWindow
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
_AGAIN = counter(
    "cryptopulse_tick_batches_resent_total",
    "Batches sent again under their own id, by reason.",
    ("venue", "reason"),
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
    """Ticks of one venue and shard to the bus, in the order given. `add_*` never wait; `run` sends.

    What the broker did not confirm, and what it had confirmed within a second before the connection was lost, is sent
    again before anything newer, each batch under its own message id.
    """

    def __init__(
        self,
        bus: TickBus,
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
        self._offsets: dict[str, int] = {}
        self._window = SentWindow()
        self._connections = bus.connections
        self._pause = FIRST_PAUSE_SECONDS
        self._taken = 0
        self._folded = 0
        self.added = 0
        self.epoch = 0
        self.last_tick_us: int | None = None
        self.buffer = TickBuffer(limit)

    def add_trade(self, trade: Trade) -> None:
        """Take one trade; the batch leaves at 512 ticks or within the flush time."""
        buffer = self.buffer
        buffer.add_trade(trade)
        self.added += 1
        if not self._armed:
            self._arm()
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
            while self._window.next_waiting() or self.buffer.has_urgent or self._quotes_due:
                await self._send_one()
                is_full = self.buffer.depth >= FLUSH_TICKS or self._quotes_due or self._wake.is_set()
                if not is_full and self._window.next_waiting() is None:
                    break
            if self.buffer.has_urgent and not self._armed:
                self._arm()

    def _arm(self) -> None:
        """Wake at the next multiple of the flush time: all buffers of a process send in one go, so that each process on
        the way wakes once for all of them, and a tick waits half the flush time on average, never longer than it.
        """
        self._armed = True
        loop = asyncio.get_running_loop()
        loop.call_at((loop.time() // self._flush_seconds + 1) * self._flush_seconds, self._wake.set)

    @property
    def settled(self) -> int:
        """So many of the `added` trades are confirmed, counted from the first: what a restart need not fetch."""
        oldest = self._window.first_unsettled
        return self._taken if oldest is None else oldest.after

    async def drained(self) -> None:
        """Wait until nothing waits any more and the broker has confirmed everything."""
        while self.buffer.has_urgent or self._window.first_unsettled is not None:
            self._wake.set()
            await asyncio.sleep(0.01)

    def discard(self) -> None:
        """Forget what waits: another replica serves this part now."""
        waiting = self.buffer.take(self.buffer.depth)
        _DROPPED.labels(self._venue, "lease_lost").inc(len(waiting.trades))
        self._window.clear()
        self._taken = self.added

    async def _send_one(self) -> None:
        self._notice_reconnect()
        sent = self._window.next_waiting() or self._next()
        if sent is None:
            return
        seq, batch, is_new = sent.batch.seq, sent.batch, not sent.sent_at
        self._window.begin(sent, self._clock.monotonic())
        try:
            await self._bus.publish(
                TICKS,
                batch,
                key=self._key,
                cc=sent.keys,
                message_id=sent.message_id,
                on_settled=partial(self._settled, seq),
            )
        except BusUnavailable:
            sent.sent_at = 0.0 if is_new else sent.sent_at
            self._window.refused(sent)
            await asyncio.sleep(self._pause)
            self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
            return
        self._pause = FIRST_PAUSE_SECONDS
        if is_new:
            self._count(batch)

    def _next(self) -> Sent | None:
        after = self._taken
        batch = self._batch()
        if batch is None:
            return None
        keys = self._topics.keys(
            self._venue, Taken(batch.trades, batch.quotes, batch.references, batch.conflated)
        )
        sent = Sent(batch, keys, uuid.uuid4().hex, after)
        self._taken += len(batch.trades) + sum(bar.trades for bar in batch.conflated)
        self._window.wait(sent)
        return sent

    def _settled(self, seq: int, confirmed: bool) -> None:
        if self._window.settled(seq, confirmed):
            _AGAIN.labels(self._venue, "unconfirmed").inc()
            asyncio.get_running_loop().call_later(FIRST_PAUSE_SECONDS, self._wake.set)

    def _notice_reconnect(self) -> None:
        connections = self._bus.connections
        if connections == self._connections:
            return
        is_first, self._connections = not self._connections, connections
        again = 0 if is_first else self._window.reconnected()
        if again:
            _AGAIN.labels(self._venue, "connection_lost").inc(again)
            log.info(
                "batches are sent again",
                venue=self._venue,
                shard=self._shard,
                confirmed_before_the_loss=again,
            )

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
            offsets=self._number([*taken.trades, *taken.conflated]),
        )

    def _number(self, rows: list[Trade | Conflated]) -> dict[str, int]:
        """The offset of each symbol's first row in a batch: every gateway replica counts on from it."""
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.symbol] = counts.get(row.symbol, 0) + 1
        firsts = {}
        for symbol, count in counts.items():
            last = self._offsets.get(symbol, 0)
            firsts[symbol] = last + 1
            self._offsets[symbol] = last + count
        return firsts

    def _learn_offset(self, trades: list[Trade]) -> None:
        for trade in trades[-8:]:
            if not trade.flags & (SNAPSHOT | BACKFILL):
                self._offset.sample(trade.event_us, trade.received_us)

    def _count(self, batch: TickBatch) -> None:
        _TICKS.labels(self._venue, "trade").inc(len(batch.trades))
        _TICKS.labels(self._venue, "quote").inc(len(batch.quotes))
        _TICKS.labels(self._venue, "reference").inc(len(batch.references))
        _DEPTH.labels(self._venue, str(self._shard)).set(self.buffer.depth)
        folded = self.buffer.conflated_trades
        if folded > self._folded:
            _DROPPED.labels(self._venue, "conflated").inc(folded - self._folded)
            log.warning(
                "trades were conflated", venue=self._venue, shard=self._shard, trades=folded - self._folded
            )
            self._folded = folded
        self.last_tick_us = self._clock.now_us()
