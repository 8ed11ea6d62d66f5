"""Streams: one per channel and subject; a message is encoded once and framed once per interval class."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.conflation import CLASSES_MS, Ring
from cryptopulse.gateway.domain.frames import text_frame

Key = tuple[str, str]
"""Channel name and subject: a symbol, `symbol@source`, a user id, or empty."""


Place = tuple[int, str]
"""An offset and its epoch."""


class Member(Protocol):
    """A listener, as a stream sees it."""

    blocked: bool
    fifo: deque[bytes]
    pending: dict[Stream, Place]
    streams: dict[Stream, int]
    write: Callable[[bytes], object]

    def say(self, payload: bytes) -> None: ...
    def say_frame(self, frame: bytes) -> None: ...
    def hold(self, stream: Stream, previous: Place, frame: bytes | None = None) -> None: ...


class Stream:
    """The sequence of messages of one key, and who listens in which class.

    Payloads are kept as objects and encoded when the first client needs them. `offset` counts what no newer message stands
    for; a forming bar changes the payload and repeats the offset. `flushed` is the last offset that was sent to a class, so
    that `skipped` is exact for all its members; `fresh` are members who joined between two flushes of their class, with the
    place and version of their snapshot. `ring`, where there is one, is what clients resume from.
    """

    __slots__ = (
        "_data",
        "_data_version",
        "_sent",
        "_told",
        "at_ms",
        "conflated",
        "encode",
        "epoch",
        "flushed",
        "fresh",
        "is_forming",
        "key",
        "members",
        "offset",
        "payload",
        "ring",
        "sid",
        "stale_since",
        "version",
        "wanted_ms",
    )

    def __init__(
        self,
        sid: int,
        key: Key,
        encode: Callable[[Any], bytes],
        *,
        conflated: bool,
        epoch: str,
        ring: Ring | None,
    ) -> None:
        self.sid = sid
        self.key = key
        self.encode = encode
        self.conflated = conflated
        self.ring = ring
        self.epoch = epoch
        self.offset = 0
        self.payload: Any = None
        self.is_forming = False
        self.version = 0
        self.at_ms = 0
        self.members: dict[int, dict[Member, None]] = {every: {} for every in CLASSES_MS}
        self.flushed = dict.fromkeys(CLASSES_MS, 0)
        self.stale_since: int | None = None
        self.wanted_ms = 0
        self.fresh: dict[Member, tuple[Place, int]] = {}
        self._sent = dict.fromkeys(CLASSES_MS, 0)
        self._told = dict.fromkeys(CLASSES_MS, epoch)
        self._data = b""
        self._data_version = -1
        self.stand()
        if ring is not None and ring.items:
            self.replace(ring.items[-1][2], ring.at_ms)

    def stand(self) -> None:
        """Take the place of the ring; only while nobody listens."""
        if self.ring is not None:
            self.epoch, self.offset = self.ring.epoch_text, self.ring.newest
            self.flushed = dict.fromkeys(CLASSES_MS, self.offset)
            self._told = dict.fromkeys(CLASSES_MS, self.epoch)

    def message(self, skipped: int, told_epoch: str) -> bytes:
        """The newest message for somebody who was told `told_epoch` last: a snapshot when another epoch has begun."""
        if told_epoch != self.epoch:
            return protocol.snapshot(self.sid, self.epoch, self.offset, self.data())
        return protocol.update(self.sid, self.offset, self.data(), skipped)

    def data(self) -> bytes:
        """The newest payload, encoded once."""
        if self._data_version != self.version:
            self._data = self.encode(self.payload)
            self._data_version = self.version
        return self._data

    def advance(self, payload: Any, at_ms: int, offset: int | None, epoch: str | None) -> bool:
        """Take the next message; False when it is not newer than what is here. A new epoch starts the stream anew."""
        if epoch is not None and epoch != self.epoch:
            self.epoch = epoch
            self.offset = (offset or 1) - 1
            self.flushed = dict.fromkeys(CLASSES_MS, self.offset)
        elif offset is not None and offset <= self.offset:
            return False
        self.offset = self.offset + 1 if offset is None else offset
        self.replace(payload, at_ms)
        return True

    def replace(self, payload: Any, at_ms: int, *, is_forming: bool = False) -> None:
        """Take a payload that does not count; a forming one is in no ring, a newer message will stand for it."""
        self.version += 1
        self.payload = payload
        self.is_forming = is_forming
        self.at_ms = at_ms

    def is_due(self, every: int) -> bool:
        """True when a class has not been sent the newest message."""
        return self._sent[every] != self.version

    def flush(self, every: int, *, replaceable: bool) -> int:
        """Send the newest message to the members of a class; the number of clients it was written to."""
        if not self.is_due(every):
            return 0
        previous, before = self.flushed[every], self._told[every]
        self._sent_to(every)
        members = self.members[every]
        if not members:
            return 0
        frame = text_frame(self.message(self.offset - previous - 1, before))
        written = 0
        for member in members:
            if member in self.fresh:
                self._catch_up(member)
            elif member.blocked or member.fifo:
                member.hold(self, (previous, before), None if replaceable else frame)
            else:
                member.write(frame)
                written += 1
        return written

    def _sent_to(self, every: int) -> None:
        self.flushed[every], self._told[every], self._sent[every] = self.offset, self.epoch, self.version

    def _catch_up(self, member: Member) -> None:
        """The first flush after a join: counted from the client's snapshot, not from the class."""
        (offset, epoch), version = self.fresh.pop(member)
        if version == self.version:
            return
        if member.blocked or member.fifo:
            member.hold(self, (offset, epoch))
            return
        member.write(text_frame(self.message(self.offset - offset - 1, epoch)))

    @property
    def has_members(self) -> bool:
        """True while someone listens."""
        return any(self.members.values())

    def join(self, member: Member, every: int) -> None:
        """Add a member; a class that was empty begins at the newest message."""
        if not self.members[every]:
            self._sent_to(every)
        elif self.is_due(every):
            self.fresh[member] = ((self.offset, self.epoch), self.version)
        self.members[every][member] = None
        member.streams[self] = every

    def leave(self, member: Member) -> None:
        """Take a member away, if he is one."""
        every = member.streams.pop(self, None)
        member.pending.pop(self, None)
        self.fresh.pop(member, None)
        if every is not None:
            self.members[every].pop(member, None)
