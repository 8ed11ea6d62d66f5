"""Batches that left and may have to leave again: until the broker confirms them, and a little longer (step 4 of the route)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from cryptopulse.common.contracts.ticks import TickBatch

RECENT_SECONDS: Final = 1.0
"""A broker that dies takes confirmed messages along that no consumer had yet: so long they are kept, to be sent again."""
RECENT_BATCHES: Final = 256


@dataclass(slots=True)
class Sent:
    """A batch with what it needs to be sent again under its own id. `after` counts the trades before its own."""

    batch: TickBatch
    keys: list[str]
    message_id: str
    after: int
    sent_at: float = 0.0
    confirmed: bool = False


class SentWindow:
    """The batches of one publisher by seq: those that wait to leave (again), those in flight, those confirmed just now.

    The bus bounds those in flight by its confirm window, and no new batch is made while one waits; the confirmed ones
    are bounded by time and number. Consumers drop the trades that they have by id.
    """

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}
        self._waiting: dict[int, Sent] = {}

    def wait(self, sent: Sent) -> None:
        """It has to leave, in the order of seq."""
        self._waiting[sent.batch.seq] = sent

    def next_waiting(self) -> Sent | None:
        """The oldest batch that has to leave."""
        return self._waiting[min(self._waiting)] if self._waiting else None

    def begin(self, sent: Sent, now: float) -> None:
        """It is being handed over."""
        sent.sent_at, sent.confirmed = now, False
        self._waiting.pop(sent.batch.seq, None)
        self._sent[sent.batch.seq] = sent

    def refused(self, sent: Sent) -> None:
        """The bus did not take it: it waits again, unless everything was forgotten meanwhile."""
        if sent.batch.seq in self._sent:
            self._waiting[sent.batch.seq] = sent

    def settled(self, seq: int, confirmed: bool) -> bool:
        """The bus tells how it ended; True when the batch has to leave again."""
        sent = self._sent.get(seq)
        if sent is None:
            return False
        sent.confirmed = confirmed
        if confirmed:
            self._forget(sent.sent_at - RECENT_SECONDS)
        else:
            self._waiting[seq] = sent
        return not confirmed

    def reconnected(self) -> int:
        """The broker may have died: trades that were confirmed just now leave again, too; how many batches.

        Their quotes do not: they would be older than what consumers have.
        """
        again = 0
        for seq, sent in self._sent.items():
            carries = sent.batch.trades or sent.batch.conflated
            if sent.confirmed and carries:
                batch = msgspec.structs.replace(sent.batch, quotes=[], references=[])
                self._waiting[seq] = Sent(batch, sent.keys, sent.message_id, sent.after, sent.sent_at)
                again += 1
        return again

    def clear(self) -> None:
        """Forget everything."""
        self._sent.clear()
        self._waiting.clear()

    @property
    def first_unsettled(self) -> Sent | None:
        """The oldest batch that the broker is not known to have."""
        unsettled = [seq for seq, sent in self._sent.items() if not sent.confirmed]
        oldest = min([*unsettled, *self._waiting], default=None)
        return None if oldest is None else self._waiting.get(oldest) or self._sent[oldest]

    def _forget(self, before: float) -> None:
        """Confirmed batches leave from the front; others are kept until they are confirmed."""
        while self._sent:
            seq, sent = next(iter(self._sent.items()))
            is_old = sent.sent_at < before or len(self._sent) > RECENT_BATCHES
            if not (sent.confirmed and is_old):
                return
            del self._sent[seq]
