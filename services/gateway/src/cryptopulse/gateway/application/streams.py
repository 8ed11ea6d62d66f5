"""Streams: one per channel and subject; a message is encoded once and framed once per interval class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptopulse.gateway.application.connection import Connection
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.conflation import CLASSES_MS, Ring
from cryptopulse.gateway.domain.frames import text_frame

Key = tuple[str, str]
"""Channel name and subject: a symbol, `symbol@source`, a user id, or empty."""


Place = tuple[int, str]
"""An offset and its epoch."""


class Stream:
    """The sequence of messages of one key, and who listens in which class.

    Payloads are kept as objects and encoded when the first client needs them. `flushed` is the last offset that was
    sent to a class, so that `skipped` is exact for all its members; `fresh` are members who joined between two flushes of
    their class, with the offset of their snapshot.
    """

    __slots__ = (
        "_data",
        "_data_offset",
        "at_ms",
        "conflated",
        "encode",
        "epoch",
        "flushed",
        "fresh",
        "key",
        "members",
        "offset",
        "payload",
        "ring",
        "sid",
        "stale_since",
        "told",
        "wanted_ms",
    )

    def __init__(
        self, sid: int, key: Key, encode: Callable[[Any], bytes], *, conflated: bool, epoch: str
    ) -> None:
        self.sid = sid
        self.key = key
        self.encode = encode
        self.conflated = conflated
        self.epoch = epoch
        self.offset = 0
        self.payload: Any = None
        self.at_ms = 0
        self.ring: Ring | None = None if conflated else Ring()
        self.members: dict[int, dict[Connection, None]] = {every: {} for every in CLASSES_MS}
        self.flushed = dict.fromkeys(CLASSES_MS, 0)
        self.stale_since: int | None = None
        self.wanted_ms = 0
        self.fresh: dict[Connection, Place] = {}
        self.told = dict.fromkeys(CLASSES_MS, epoch)
        self._data = b""
        self._data_offset = -1

    def message(self, skipped: int, told_epoch: str) -> bytes:
        """The newest message for somebody who was told `told_epoch` last: a snapshot when another epoch has begun."""
        if told_epoch != self.epoch:
            return protocol.snapshot(self.sid, self.epoch, self.offset, self.data())
        return protocol.update(self.sid, self.offset, self.data(), skipped)

    def data(self) -> bytes:
        """The newest payload, encoded once."""
        if self._data_offset != self.offset:
            self._data = self.encode(self.payload)
            self._data_offset = self.offset
        return self._data

    def advance(self, payload: Any, at_ms: int, offset: int | None, epoch: str | None) -> bool:
        """Take a new message; False when it is not newer than what is here. A new epoch starts the stream anew."""
        if epoch is not None and epoch != self.epoch:
            self.epoch = epoch
            self.offset = (offset or 1) - 1
            self.flushed = dict.fromkeys(CLASSES_MS, self.offset)
            if self.ring is not None:
                self.ring.clear()
        elif offset is not None and offset <= self.offset:
            return False
        self.offset = self.offset + 1 if offset is None else offset
        self._data_offset = -1
        self.payload = payload
        self.at_ms = at_ms
        if self.ring is not None:
            self.ring.append(self.offset, at_ms, payload)
        return True

    def flush(self, every: int, *, replaceable: bool) -> int:
        """Send the newest message to the members of a class; the number of clients it was written to."""
        previous = self.flushed[every]
        if previous == self.offset and self.told[every] == self.epoch:
            return 0
        self.flushed[every] = self.offset
        members = self.members[every]
        if not members:
            return 0
        skipped = self.offset - previous - 1 if self.conflated else 0
        before = self.told[every]
        self.told[every] = self.epoch
        frame = text_frame(self.message(skipped, before))
        written = 0
        for connection in members:
            if connection in self.fresh:
                self._catch_up(connection)
            elif connection.blocked or connection.fifo:
                connection.hold(self, (previous, before), replaceable=replaceable)
            else:
                connection.write(frame)
                written += 1
        return written

    def _catch_up(self, connection: Connection) -> None:
        """The first flush after a join: counted from the client's snapshot, not from the class."""
        seen = self.fresh.pop(connection)
        if seen == (self.offset, self.epoch):
            return
        if connection.blocked or connection.fifo:
            connection.hold(self, seen, replaceable=True)
            return
        offset, epoch = seen
        connection.write(text_frame(self.message(self.offset - offset - 1, epoch)))

    @property
    def has_members(self) -> bool:
        """True while someone listens."""
        return any(self.members.values())

    def join(self, connection: Connection, every: int) -> None:
        """Add a member; a class that was empty begins at the newest message."""
        if not self.members[every]:
            self.flushed[every] = self.offset
            self.told[every] = self.epoch
        self.members[every][connection] = None
        connection.streams[self] = every

    def leave(self, connection: Connection) -> None:
        """Take a member away, if he is one."""
        every = connection.streams.pop(self, None)
        connection.pending.pop(self, None)
        self.fresh.pop(connection, None)
        if every is not None:
            self.members[every].pop(connection, None)
